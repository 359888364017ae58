//! The socket's file: made, taken over from a node that has died, given its owner, removed; and who comes in by it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use microfaas_sys::local::{self, Peer};
use thiserror::Error;

use crate::attach::SocketConfig;

/// Why a node cannot listen for hosts.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SocketError {
    /// A node that lives has it.
    #[error("socket `{}`: another node listens there", path.display())]
    Busy {
        /// The socket.
        path: PathBuf,
    },
    /// There is a file of another kind, which is left alone.
    #[error("socket `{}`: there is a file that is no socket", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be given to this group.
    #[error("socket `{}` cannot be given to group {group}: {source}", path.display())]
    Group {
        /// The socket.
        path: PathBuf,
        /// The group's number.
        group: u32,
        /// Why.
        source: io::Error,
    },
    /// The system's answer.
    #[error("socket `{}`: {source}", path.display())]
    System {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The listening socket. Its file goes when it is dropped, unless another has taken its place.
#[derive(Debug)]
pub(crate) struct Door {
    listener: OwnedFd,
    path: PathBuf,
    /// Device and number of the file.
    file: (u64, u64),
    uid: u32,
    users: Vec<u32>,
    groups: Vec<u32>,
}

impl Door {
    pub(crate) fn open(config: &SocketConfig) -> Result<Self, SocketError> {
        let path = config.path.clone();
        let failed = |source| SocketError::System { path: path.clone(), source };
        let listener = listen(config)?;
        let metadata = std::fs::symlink_metadata(&path).map_err(failed)?;
        let file = (metadata.dev(), metadata.ino());
        let (users, groups) = (config.users.clone(), config.groups.clone());
        let uid = microfaas_sys::privileges::user();
        // What fails from here on leaves no file behind.
        let door = Self { listener, path: path.clone(), file, uid, users, groups };
        if let Some(group) = config.group {
            std::os::unix::fs::chown(&path, None, Some(group)).map_err(|source| {
                let path = path.clone();
                SocketError::Group { path, group, source }
            })?;
        }
        // The process's mask has taken from these; whoever is let through too early is looked at all the same.
        let mode = std::fs::Permissions::from_mode(config.mode & 0o777);
        std::fs::set_permissions(&path, mode).map_err(failed)?;
        Ok(door)
    }

    /// The next to come in, if one has come.
    pub(crate) fn accept(&self) -> io::Result<OwnedFd> {
        local::accept(self.listener.as_fd())
    }

    /// From now on these may, and no others beside its own user and root.
    pub(crate) fn admit(&mut self, users: Vec<u32>, groups: Vec<u32>) {
        (self.users, self.groups) = (users, groups);
    }

    /// Whether it may stay.
    pub(crate) fn admits(&self, peer: &Peer) -> bool {
        self.is_own(peer)
            || self.users.contains(&peer.uid)
            || peer.groups.iter().any(|group| self.groups.contains(group))
    }

    /// Whether it is of the node's own user, or root: its word counts as the node's.
    pub(crate) fn is_own(&self, peer: &Peer) -> bool {
        peer.uid == 0 || peer.uid == self.uid
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let is_ours = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino()) == self.file;
        if std::fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Listens, in the place of a socket on which nobody does any more. Two nodes that do this at the same time wait for each other at the folder.
fn listen(config: &SocketConfig) -> Result<OwnedFd, SocketError> {
    let path = &config.path;
    let failed = |source| SocketError::System { path: path.clone(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Where the folder cannot be locked there is no such wait.
    let lock = File::open(folder).and_then(|folder| folder.lock().map(|()| folder));
    // Nobody but its owner is let through before the group is right.
    let listener = match local::listen(path, config.mode & 0o700) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            make_way(path)?;
            local::listen(path, config.mode & 0o700)
        }
        listener => listener,
    };
    drop(lock);
    listener.map_err(failed)
}

/// Removes a socket that nobody listens on.
fn make_way(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::System { path: path.to_owned(), source };
    if !std::fs::symlink_metadata(path).map_err(failed)?.file_type().is_socket() {
        return Err(SocketError::NotASocket { path: path.to_owned() });
    }
    match local::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "the socket of a node that has gone is replaced");
            std::fs::remove_file(path).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // It listens, or does not let us know.
        Ok(_) | Err(_) => Err(SocketError::Busy { path: path.to_owned() }),
    }
}
