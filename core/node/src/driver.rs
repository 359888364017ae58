//! Who wakes the futures of calls: a task on the tokio runtime that polls them, started by the first such poll, one for each runtime.
//!
//! The task sleeps on the node's event descriptor, drains all lanes when it wakes, and so wakes the owners. It ends with its runtime or with the node.
//! The runtime must have its I/O driver enabled. Deadlines are the supervisor's: it wakes the owners of overdue calls.
//! A future polled outside a tokio runtime, or without the feature `tokio`, is woken by whoever else drains its lane, and at its deadline: such
//! an executor watches [`Node::event_fd`](crate::Node::event_fd) itself.

#[cfg(feature = "tokio")]
pub(crate) use with_tokio::{Drivers, ensure};

#[cfg(not(feature = "tokio"))]
pub(crate) fn ensure(_hub: &std::sync::Arc<crate::hub::Hub>) {}

#[cfg(feature = "tokio")]
mod with_tokio {
    #![expect(unsafe_code, reason = "lends a descriptor to the runtime")]

    use std::cell::Cell;
    use std::io;
    use std::os::fd::OwnedFd;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex, PoisonError};

    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;
    use tokio::runtime::{Handle, Id};

    use crate::hub::Hub;

    /// Rounds without rest while answers keep coming, before the runtime's other tasks get a turn.
    const BUSY_MAX: u32 = 16;

    /// Numbers nodes.
    static NODES: AtomicU64 = AtomicU64::new(1);

    thread_local! {
        /// The node and the runtime of the driver that this thread has last made sure of: a driver ends with one of the two.
        static LAST: Cell<Option<(u64, Id)>> = const { Cell::new(None) };
    }

    /// The runtimes that have a driver of this node.
    #[derive(Debug)]
    pub(crate) struct Drivers {
        node: u64,
        running: Mutex<Vec<Id>>,
    }

    impl Default for Drivers {
        fn default() -> Self {
            Self { node: NODES.fetch_add(1, Ordering::Relaxed), running: Mutex::default() }
        }
    }

    /// Takes its runtime off the list when the task ends, in whatever way.
    struct Entry {
        hub: Arc<Hub>,
        id: Id,
    }

    impl Drop for Entry {
        fn drop(&mut self) {
            let mut running = self.hub.drivers.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.retain(|id| *id != self.id);
        }
    }

    /// Starts a driver on the current runtime, unless it has one or there is no runtime.
    ///
    /// # Cost
    /// A lock only where this thread has last polled a call of another node or on another runtime.
    pub(crate) fn ensure(hub: &Arc<Hub>) {
        let Ok(runtime) = Handle::try_current() else { return };
        let id = runtime.id();
        if LAST.replace(Some((hub.drivers.node, id))) == Some((hub.drivers.node, id)) {
            return;
        }
        let mut running = hub.drivers.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.contains(&id) {
            return;
        }
        running.push(id);
        let entry = Entry { hub: Arc::clone(hub), id };
        runtime.spawn(drive(entry));
    }

    async fn drive(entry: Entry) {
        let events = match listen(&entry.hub) {
            Ok(events) => events,
            Err(error) => {
                tracing::error!(%error, "futures of calls have no driver, they are ready at their deadlines only");
                return;
            }
        };
        let mut busy = 0;
        while let Some(node) = entry.hub.node().filter(|node| !node.has_stopped()) {
            // A runtime may never be run again after an await, so all is drained and the next nap announced before each.
            let quiet = node.arm();
            if !quiet {
                node.poll();
                busy += 1;
                if busy < BUSY_MAX {
                    continue;
                }
            }
            drop(node);
            busy = 0;
            if quiet {
                let Ok(mut guard) = events.readable().await else { return };
                guard.clear_ready();
            } else {
                tokio::task::yield_now().await;
            }
            let Some(node) = entry.hub.node() else { return };
            node.disarm();
            node.poll();
        }
    }

    fn listen(hub: &Hub) -> io::Result<AsyncFd<OwnedFd>> {
        let fd = hub.events().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` is open and always the same descriptor for its whole life, and the `AsyncFd` owns it.
        unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(Into::into)
    }
}
