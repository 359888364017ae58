//! What is logged in an experiment's process: counted, and shown only where `RUST_LOG` asks for it.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use tracing_subscriber::EnvFilter;

/// Most bytes of the log for one thing that happens (invariant I7).
pub const BYTES_PER_EVENT: u64 = 64 << 10;

static BYTES: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Clone, Copy)]
struct Counted {
    shown: bool,
}

impl Write for Counted {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        BYTES.fetch_add(line.len() as u64, Ordering::Relaxed);
        if self.shown { io::stderr().write(line) } else { Ok(line.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Begins. What is said from INFO on counts, or what `RUST_LOG` says.
pub fn start() {
    let filter = EnvFilter::try_from_default_env();
    let counted = Counted { shown: filter.is_ok() };
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || counted).init();
}

/// How much this process has logged.
#[must_use]
pub fn bytes() -> u64 {
    BYTES.load(Ordering::Relaxed)
}
