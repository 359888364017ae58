//! A node's counts, over its socket: a file in memory, since they may be longer than a packet.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use microfaas_control::stats::{NodeStats, REQUEST};
use microfaas_sys::memfd;
use serde_json::Value;

use crate::attach::ConnectError;
use crate::attach::session::Session;
use crate::node::Shared;

/// Most bytes of an answer that are read.
const BYTES_MAX: usize = 256 << 20;

/// Asks the node that listens at a socket for its counts. Only its own user and root may. Costs its calls nothing.
///
/// # Errors
/// [`ConnectError`], within some seconds.
pub fn stats(socket: impl AsRef<Path>) -> Result<NodeStats, ConnectError> {
    let path = socket.as_ref();
    let (answer, fds) = Session::ask(path, Value::from(REQUEST))?;
    let read = || -> io::Result<NodeStats> {
        let bytes = answer.as_u64().and_then(|bytes| usize::try_from(bytes).ok());
        let (Some(bytes), Some(fd)) = (bytes.filter(|bytes| *bytes <= BYTES_MAX), fds.into_iter().next())
        else {
            return Err(io::Error::other("it does not say how many"));
        };
        let mut text = vec![0; bytes];
        File::from(fd).read_exact_at(&mut text, 0)?;
        serde_json::from_slice(&text).map_err(io::Error::other)
    };
    read().map_err(|source| ConnectError::System { what: "cannot read the node's counts", source })
}

/// Whether this asks for the counts.
pub(super) fn is_asked(request: &Value) -> bool {
    request == REQUEST
}

/// The answer, and the file beside it.
pub(super) fn answer(shared: &Shared) -> io::Result<(Value, Arc<OwnedFd>)> {
    let text = serde_json::to_vec(&shared.metrics().report()).map_err(io::Error::other)?;
    let fd = memfd::from_bytes(c"microfaas-stats", &text)?;
    Ok((Value::from(text.len()), Arc::new(fd)))
}
