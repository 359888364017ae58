//! What all lanes of a node share: the event descriptor, the deadlines' watch, the way to the supervisor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use std::sync::{Arc, OnceLock, Weak};

use crate::ban::Bans;
use crate::limits::{Pace, Quotas};
use crate::metrics::Decided;
use crate::moves::Orphans;
use crate::node::Shared;
use microfaas_sys::epoll::{Edge, Epoll};
use microfaas_sys::eventfd;

/// What counts as the deadline of a call that has none: `u64::MAX` means that the supervisor knows of no call at all.
pub(crate) const LATEST_NS: u64 = u64::MAX - 1;

/// See the module.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) spin_ns: u64,
    pub(crate) bans: Bans,
    /// What this host has decided of calls without a worker.
    pub(crate) decided: Decided,
    pub(crate) orphans: Orphans,
    pub(crate) quotas: Quotas,
    pub(crate) pace: Pace,
    /// Collects the event descriptors of all lanes and `notify`: a hostile worker can silence its own only.
    events: Epoll,
    /// Signalled by threads of the host that have settled a call while an event loop sleeps.
    notify: OwnedFd,
    /// An event loop sleeps, or is about to, and has not been signalled since.
    armed: AtomicBool,
    /// When the supervisor looks at deadlines next; a call that is due earlier wakes it.
    next_look_ns: AtomicU64,
    supervisor: OwnedFd,
    /// The node, for drivers; set once.
    node: OnceLock<Weak<Shared>>,
    #[cfg(feature = "tokio")]
    pub(crate) drivers: crate::driver::Drivers,
}

impl Hub {
    pub(crate) fn new(spin_ns: u64) -> io::Result<Self> {
        let (events, notify) = (Epoll::new()?, eventfd::create()?);
        events.add(notify.as_fd(), Edge::Rising)?;
        Ok(Self {
            spin_ns,
            bans: Bans::default(),
            decided: Decided::default(),
            orphans: Orphans::default(),
            quotas: Quotas::default(),
            pace: Pace::default(),
            events,
            notify,
            armed: AtomicBool::new(false),
            next_look_ns: AtomicU64::new(0),
            supervisor: eventfd::create()?,
            node: OnceLock::new(),
            #[cfg(feature = "tokio")]
            drivers: Default::default(),
        })
    }

    /// To be called once, when the node is made.
    pub(crate) fn belongs_to(&self, node: &Arc<Shared>) {
        self.node.get_or_init(|| Arc::downgrade(node));
    }

    /// The node, while it exists.
    #[cfg(feature = "tokio")]
    pub(crate) fn node(&self) -> Option<Arc<Shared>> {
        self.node.get()?.upgrade()
    }

    pub(crate) fn events(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Listens to a new lane's event descriptor. It leaves by itself when its last descriptor is closed.
    pub(crate) fn listen(&self, event: BorrowedFd<'_>) -> io::Result<()> {
        self.events.add(event, Edge::Rising)
    }

    /// An event loop is about to sleep; it looks at all lanes once more after this.
    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::Relaxed);
        // Pairs with the fence of whoever settles.
        fence(Ordering::SeqCst);
    }

    /// Wakes whoever sleeps on the event descriptor, for good reasons only.
    pub(crate) fn wake_event_loop(&self) {
        let _ = eventfd::signal(self.notify.as_fd());
    }

    /// The event loop is awake; makes the descriptor unreadable. Another one may still sleep, so nothing is taken back: that costs
    /// at most one signal in vain.
    pub(crate) fn disarm(&self) {
        let _ = self.events.clear();
    }

    /// A thread of the host has settled calls, after a `SeqCst` fence: wakes the event loop, once for each nap.
    pub(crate) fn settled(&self) {
        if self.armed.load(Ordering::Relaxed) && self.armed.swap(false, Ordering::Relaxed) {
            self.wake_event_loop();
        }
    }

    /// A call with this deadline was submitted, before a `SeqCst` fence. One without a deadline wakes a supervisor that knows of no call, too: while
    /// calls are out it looks at all lanes now and then, for a worker that does not ring.
    pub(crate) fn deadline_set(&self, deadline_ns: u64) {
        if deadline_ns.min(LATEST_NS) < self.next_look_ns.load(Ordering::Relaxed) {
            self.wake_supervisor();
        }
    }

    /// Supervisor: until when it will not look at deadlines, unless woken. To be followed by another look at the calls in flight.
    pub(crate) fn look_again_at(&self, time_ns: u64) {
        self.next_look_ns.store(time_ns, Ordering::Relaxed);
        // Pairs with the fence of a submitter.
        fence(Ordering::SeqCst);
    }

    pub(crate) fn wake_supervisor(&self) {
        let _ = eventfd::signal(self.supervisor.as_fd());
    }

    /// What the supervisor waits for.
    pub(crate) fn supervisor(&self) -> BorrowedFd<'_> {
        self.supervisor.as_fd()
    }
}
