//! What a node's handles, its supervisor and its attach server share.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use arc_swap::ArcSwap;

use crate::CallError;
use crate::attach::bulletin::Bulletin;
use crate::attach::ledger::Ledgers;
use crate::call::FunctionHandle;
use crate::catalog::Catalog;
use crate::command::{Command, Desk};
use crate::hub::Hub;
use crate::lane::Lane;
use crate::names::Names;
use crate::seat::Seat;
use crate::spare::SpareBoard;
use crate::stock::Stock;

static NODES: AtomicU32 = AtomicU32::new(0);

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Tells the function handles of nodes in one process apart.
    pub(crate) id: u32,
    /// What a function's number stands for now.
    pub(crate) names: Names,
    /// What is deployed now; the supervisor replaces it.
    pub(crate) catalog: ArcSwap<Catalog>,
    pub(crate) seats: Box<[Seat]>,
    pub(crate) hub: Arc<Hub>,
    /// The way to the supervisor.
    pub(crate) desk: Desk,
    /// What is loaded where; the supervisor keeps it.
    pub(crate) stock: Arc<Stock>,
    /// What the supervisor lets the attach server know.
    pub(crate) bulletin: Bulletin,
    /// What attached hosts have counted.
    pub(crate) ledgers: Ledgers,
    pub(crate) spares: SpareBoard,
    pub(crate) closed: AtomicBool,
    /// How often the supervisor has come round.
    pub(crate) rounds: AtomicU64,
    /// When the supervisor is to stop waiting for calls that run; set once.
    pub(crate) stop_by: Mutex<Option<Instant>>,
}

impl Shared {
    /// With the end of the desk that the supervisor keeps.
    pub(crate) fn new(seats: Box<[Seat]>, hub: Arc<Hub>) -> (Arc<Self>, Receiver<Command>) {
        let (desk, inbox) = Desk::new(Arc::clone(&hub));
        let shared = Arc::new(Self {
            id: NODES.fetch_add(1, Ordering::Relaxed),
            stock: Arc::new(Stock::new(seats.len())),
            names: Names::default(),
            catalog: Arc::new(Catalog::default()).into(),
            seats,
            hub,
            desk,
            bulletin: Bulletin::default(),
            ledgers: Ledgers::default(),
            spares: SpareBoard::default(),
            closed: AtomicBool::new(false),
            rounds: AtomicU64::new(0),
            stop_by: Mutex::new(None),
        });
        shared.hub.belongs_to(&shared);
        (shared, inbox)
    }

    pub(super) fn function(&self, name: &str) -> Result<FunctionHandle, CallError> {
        let id = *self.catalog.load().by_name.get(name).ok_or(CallError::UnknownFunction)?;
        Ok(FunctionHandle { node: self.id, id })
    }

    pub(crate) fn poll(&self) -> usize {
        self.lanes().map(|lane| lane.drain()).sum()
    }

    /// Whether no worker is left and none will come.
    #[cfg(feature = "tokio")]
    pub(crate) fn has_stopped(&self) -> bool {
        self.closed.load(Ordering::Relaxed) && self.lanes().next().is_none()
    }

    pub(crate) fn arm(&self) -> bool {
        self.hub.arm();
        for lane in self.lanes() {
            lane.host.host_words().event_epoch.doze_shared();
            // This look must be a real one, so it waits for the reader: what is in the ring now, the worker does not ring for.
            if lane.has_news(&lane.lock()) {
                return false;
            }
        }
        true
    }

    pub(crate) fn disarm(&self) {
        self.hub.disarm();
    }

    pub(crate) fn lanes(&self) -> impl Iterator<Item = Arc<Lane>> {
        self.seats.iter().filter_map(Seat::lane)
    }
}
