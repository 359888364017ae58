//! A host's connection to a node: made, and let in.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use microfaas_control::admin::{AdminAnswer, AdminRequest};
use microfaas_control::attach::{FDS_MAX, FromHost, Function, ToHost, VERSION, Welcome};
use microfaas_control::{PACKET_BYTES_MAX, decode, encode};
use microfaas_metrics::Recorder;
use microfaas_sys::{local, socket};
use thiserror::Error;

use crate::completion::printable;

/// How long the node may take to let a host in.
const WELCOME_WITHIN: Duration = Duration::from_secs(5);

/// How often who waits looks whether the node is still wanted.
const LOOK: Duration = Duration::from_millis(50);

/// How long the node may take over what it was asked: workers that load a module may each take half a minute.
const DONE_WITHIN: Duration = Duration::from_secs(300);

/// Why a host could not attach. Each prints as one line.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is no socket, or nobody listens on it.
    #[error("no node listens at `{}`: {source}", path.display())]
    NoNode {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The socket's permissions do not let this user in.
    #[error("this user may not connect to `{}`", path.display())]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// The node does not want this host.
    #[error("the node at `{}` refused: {reason}", path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// In its words.
        reason: String,
    },
    /// It accepted and then said nothing.
    #[error("the node at `{}` did not answer in {seconds} s", path.display())]
    Silent {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// It said something that does not belong there.
    #[error("the program that listens at `{}` is no node of this version", path.display())]
    Protocol {
        /// The socket.
        path: PathBuf,
    },
    /// It closed the connection.
    #[error("the connection to the node at `{}` broke: {source}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something that a host needs of the system was refused.
    #[error("{what}: {source}")]
    System {
        /// What it was for.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// A connection that was let in, with the table of functions as it was then.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) socket: OwnedFd,
    pub(crate) welcome: Welcome,
    pub(crate) functions: Vec<Function>,
    /// What it may count in, for the node.
    pub(crate) ledger: Option<Recorder>,
}

/// A packet with what came beside it.
pub(crate) type Letter = (ToHost, Vec<OwnedFd>);

impl Session {
    /// Connects and says hello. Waits for a few seconds at most, and not for a node that is not wanted any more.
    pub(crate) fn open(path: &Path, is_wanted: impl Fn() -> bool) -> Result<Self, ConnectError> {
        Self::enter(path, true, &is_wanted)
    }

    /// Asks the node's administration for something, in a connection of its own. Waits for a few seconds at most.
    pub(crate) fn ask(
        path: &Path,
        request: serde_json::Value,
    ) -> Result<(serde_json::Value, Vec<OwnedFd>), ConnectError> {
        let by = Instant::now() + WELCOME_WITHIN;
        let session = Self::enter(path, false, &|| true)?;
        let protocol = |_| ConnectError::Protocol { path: path.to_owned() };
        let packet = encode(&FromHost::Admin { id: 0, request }).map_err(protocol)?;
        // A node that has closed the connection has said why, which is read next.
        let _ = socket::send(session.socket.as_fd(), &packet, &[]);
        loop {
            // Others are news that do not matter here.
            if let (ToHost::Admin { answer, .. }, fds) = next(&session.socket, path, by, &|| true)? {
                let refused = |reason: String| ConnectError::Refused {
                    path: path.to_owned(),
                    reason: printable(reason.as_bytes()),
                };
                return answer.map(|answer| (answer, fds)).map_err(refused);
            }
        }
    }

    fn enter(path: &Path, lanes: bool, is_wanted: &dyn Fn() -> bool) -> Result<Self, ConnectError> {
        let by = Instant::now() + WELCOME_WITHIN;
        let socket = connect(path, by, is_wanted)?;
        let hello = FromHost::Hello { version: VERSION, lanes };
        let packet = encode(&hello).map_err(|_| ConnectError::Protocol { path: path.to_owned() })?;
        // A node that has refused already has said why, which is read next.
        let _ = socket::send(socket.as_fd(), &packet, &[]);
        let (ToHost::Welcome(welcome), fds) = next(&socket, path, by, is_wanted)? else {
            return Err(ConnectError::Protocol { path: path.to_owned() });
        };
        let ledger = fds.first().map(|fd| Recorder::map(fd.as_fd())).transpose();
        let ledger = ledger
            .map_err(|source| ConnectError::System { what: "cannot map what the node reads", source })?;
        if welcome.version != VERSION || welcome.workers == 0 {
            return Err(ConnectError::Protocol { path: path.to_owned() });
        }
        let mut functions = Vec::new();
        loop {
            match next(&socket, path, by, is_wanted)? {
                (ToHost::Functions { first, last, functions: part }, _) => {
                    if first {
                        functions.clear();
                    }
                    functions.extend(part);
                    if last {
                        return Ok(Self { socket, welcome, functions, ledger });
                    }
                }
                _ => return Err(ConnectError::Protocol { path: path.to_owned() }),
            }
        }
    }
}

/// Asks the node that listens at a socket for something that only its own user and root may: to deploy a module, say. Waits until it is done.
///
/// # Errors
/// [`ConnectError`] where no answer comes. What the node refuses is an answer.
pub fn administrate(path: &Path, request: &AdminRequest) -> Result<AdminAnswer, ConnectError> {
    let by = Instant::now() + WELCOME_WITHIN;
    let socket = connect(path, by, &|| true)?;
    let say = |message: &FromHost| {
        let packet = encode(message).map_err(|_| ConnectError::Protocol { path: path.to_owned() })?;
        // A node that has refused already has said why, which is read next.
        let _ = socket::send(socket.as_fd(), &packet, &[]);
        Ok(())
    };
    say(&FromHost::Hello { version: VERSION, lanes: false })?;
    let (ToHost::Welcome(_), _) = next(&socket, path, by, &|| true)? else {
        return Err(ConnectError::Protocol { path: path.to_owned() });
    };
    say(&FromHost::Admin { id: 0, request: request.to_value() })?;
    let by = Instant::now() + DONE_WITHIN;
    loop {
        // The tables of functions and workers come first.
        if let (ToHost::Admin { id: 0, answer }, _) = next(&socket, path, by, &|| true)? {
            return Ok(AdminAnswer::from_value(answer));
        }
    }
}

fn connect(path: &Path, by: Instant, is_wanted: &dyn Fn() -> bool) -> Result<OwnedFd, ConnectError> {
    loop {
        let error = match local::connect(path) {
            Ok(socket) => return Ok(socket),
            Err(error) => error,
        };
        match error.kind() {
            io::ErrorKind::PermissionDenied => return Err(ConnectError::Denied { path: path.to_owned() }),
            // Others wait to be let in.
            io::ErrorKind::WouldBlock if Instant::now() < by && is_wanted() => {
                std::thread::sleep(Duration::from_millis(10));
            }
            _ => return Err(ConnectError::NoNode { path: path.to_owned(), source: error }),
        }
    }
}

fn next(
    socket: &OwnedFd,
    path: &Path,
    by: Instant,
    is_wanted: &dyn Fn() -> bool,
) -> Result<Letter, ConnectError> {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    let start = Instant::now();
    let packet = loop {
        let left = by.saturating_duration_since(start);
        let left = left.saturating_sub(start.elapsed()).min(LOOK);
        match socket::recv(socket.as_fd(), &mut buffer, FDS_MAX, Some(left)) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut && Instant::now() < by && is_wanted() => {}
            packet => break packet,
        }
    };
    let path = || path.to_owned();
    let packet = packet.map_err(|source| match source.kind() {
        io::ErrorKind::TimedOut => ConnectError::Silent { path: path(), seconds: start.elapsed().as_secs() },
        _ => ConnectError::Broken { path: path(), source },
    })?;
    if packet.len == 0 {
        return Err(ConnectError::Broken { path: path(), source: io::ErrorKind::UnexpectedEof.into() });
    }
    match decode(&buffer[..packet.len]) {
        Ok(ToHost::Refused { reason }) => {
            Err(ConnectError::Refused { path: path(), reason: printable(reason.as_bytes()) })
        }
        Ok(message) => Ok((message, packet.fds)),
        Err(_) => Err(ConnectError::Protocol { path: path() }),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// As when the node is stopped, and its host is shut down.
    #[test]
    fn a_node_that_is_not_wanted_any_more_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _silent = local::listen(&path, 0o600).unwrap();
        let looks = Cell::new(0);
        let is_wanted = || {
            looks.set(looks.get() + 1);
            looks.get() < 3
        };
        assert!(matches!(Session::open(&path, is_wanted), Err(ConnectError::Silent { .. })));
        assert_eq!(looks.get(), 3);
    }
}
