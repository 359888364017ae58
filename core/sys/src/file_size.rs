//! What comes of a file that would grow beyond the limit of this process. See `setrlimit(2)`.
#![expect(unsafe_code, reason = "sets what a signal does")]

use std::io;

use nix::sys::signal::{SigHandler, Signal, signal};

/// From now on it is an error of the write, `EFBIG`, and not the end of the process by SIGXFSZ: a log that has grown too large, or shared memory that may not be made. Processes that
/// are started afterwards inherit this.
///
/// # Errors
/// None in ordinary use.
pub fn refuse_beyond_limit() -> io::Result<()> {
    // SAFETY: no function of this process is called when the signal comes.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
    Ok(())
}
