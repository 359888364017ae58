//! The way from those who log to the standard error: a queue of bounded length, and one thread that writes.
//!
//! Nobody but this thread waits for whoever reads the log. The supervisor, the gateway's thread and the one that hosts attach by go on where nobody reads; what does not fit
//! in the queue is left out, and said as soon as there is a reader again. (`tracing-appender` has the same queue, but says on the standard output that it could not be
//! emptied at the end, which hangs or panics where that is the same pipe, or closed.)

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait to be written, of some hundred bytes each.
const LINES_MAX: usize = 8192;
/// Between two lines that say how many were left out.
const SAY_EVERY: Duration = Duration::from_secs(1);
/// While the queue is full at the end: how often it is tried.
const TRY_EVERY: Duration = Duration::from_millis(1);

#[derive(Debug)]
enum Letter {
    Line(Vec<u8>),
    /// To be answered when all that came before is written.
    Flush(SyncSender<()>),
}

/// Takes lines from any thread, without waiting. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    letters: SyncSender<Letter>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Lines that did not fit in, and have not been said yet.
    lost: AtomicU64,
    writer: OnceLock<ThreadId>,
}

impl Queue {
    /// Starts the thread, which writes to `out` what it is given. `say` logs that so many lines were left out; what it logs is written at once.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub(super) fn start(out: impl Write + Send + 'static, say: fn(u64)) -> io::Result<Self> {
        Self::of(LINES_MAX, out, say)
    }

    fn of(lines: usize, out: impl Write + Send + 'static, say: fn(u64)) -> io::Result<Self> {
        let (letters, inbox) = sync_channel(lines);
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        thread::Builder::new()
            .name("microfaas-writer".into())
            .spawn(move || write_all(&inbox, &theirs, out, say))?;
        Ok(Self { letters, shared })
    }

    /// Waits until what was logged before is written, at most so long. False where time was up.
    pub(super) fn flush(&self, within: Duration) -> bool {
        let start = Instant::now();
        let (done, is_done) = sync_channel(1);
        let mut letter = Letter::Flush(done);
        loop {
            match self.letters.try_send(letter) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) if start.elapsed() < within => letter = back,
                Err(_) => return false,
            }
            thread::sleep(TRY_EVERY);
        }
        is_done.recv_timeout(within.saturating_sub(start.elapsed())).is_ok()
    }
}

impl Write for Queue {
    /// A whole line: the formatter hands each over in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.shared.writer.get() == Some(&thread::current().id()) {
            // What the writer itself has to say is not to wait for it.
            return io::stderr().write(line);
        }
        if self.letters.try_send(Letter::Line(line.to_vec())).is_err() {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn write_all(inbox: &Receiver<Letter>, shared: &Shared, mut out: impl Write, say: fn(u64)) {
    let _ = shared.writer.set(thread::current().id());
    let mut said: Option<Instant> = None;
    loop {
        // It sleeps for good only where all has been said.
        let next = match shared.lost.load(Ordering::Relaxed) {
            0 => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            _ => inbox.recv_timeout(SAY_EVERY),
        };
        match next {
            // Who has closed the standard error does not want to read.
            Ok(Letter::Line(line)) => drop(out.write_all(&line)),
            Ok(Letter::Flush(done)) => {
                tell(shared, say);
                let _ = out.flush();
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if said.is_none_or(|time| time.elapsed() >= SAY_EVERY) && tell(shared, say) {
            said = Some(Instant::now());
        }
    }
}

/// Says how many lines were left out; false where none was.
fn tell(shared: &Shared, say: fn(u64)) -> bool {
    let lost = shared.lost.swap(0, Ordering::Relaxed);
    if lost > 0 {
        say(lost);
    }
    lost > 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc::{self, Sender};

    static SAID: AtomicU64 = AtomicU64::new(0);
    const WATCHDOG: Duration = Duration::from_secs(60);

    fn say(lines: u64) {
        SAID.fetch_add(lines, Ordering::SeqCst);
    }

    /// Writes a line when it is let.
    struct Slow {
        began: Sender<()>,
        gate: Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.began.send(());
            let _ = self.gate.recv();
            self.written.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_logs_does_not_wait_for_who_reads() {
        let (began, has_begun) = mpsc::channel();
        let (open, gate) = mpsc::channel();
        let written = Arc::default();
        let mut queue = Queue::of(2, Slow { began, gate, written: Arc::clone(&written) }, say).unwrap();
        queue.write_all(b"1").unwrap();
        has_begun.recv_timeout(WATCHDOG).unwrap();
        // One is being written, two wait, and two are left out.
        for line in [b"2", b"3", b"4", b"5"] {
            queue.write_all(line).unwrap();
        }
        assert!(!Queue::flush(&queue, Duration::from_millis(5)), "nobody reads");
        drop(open);
        assert!(Queue::flush(&queue, WATCHDOG));
        assert_eq!(*written.lock().unwrap(), b"123");
        assert_eq!(SAID.load(Ordering::SeqCst), 2);
    }
}
