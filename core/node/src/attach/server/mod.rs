//! The thread that lets hosts in and gives them lanes. See the module above.

mod errands;
mod guests;
mod lanes;
mod news;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use microfaas_control::PACKET_BYTES_MAX;
use microfaas_control::attach::ToHost;
use microfaas_control::rate::Rate;
use microfaas_lane::layout::Geometry;
use microfaas_sys::{eventfd, poll};

use crate::attach::door::Door;
use crate::attach::guest::Guest;
use crate::attach::numbers::Numbers;
use crate::attach::server::errands::Errands;
use crate::catalog::Catalog;
use crate::command::Pending;
use crate::lapse::Lapse;
use crate::node::Shared;

/// Between two lanes to the same worker, and after something could not be made.
const PAUSE: Duration = Duration::from_millis(100);

/// What the server needs to know of its node.
#[derive(Debug)]
pub(crate) struct Terms {
    pub(crate) geometry: Geometry,
    pub(crate) spin_ns: u64,
    pub(crate) stall_ns: u64,
    pub(crate) hosts_max: u32,
}

/// A worker's place, as the server last saw it.
#[derive(Debug, Default)]
struct Post {
    serves: bool,
    generation: u32,
    numbers: Numbers,
}

/// Who asked a worker for what.
#[derive(Debug)]
enum Purpose {
    Add {
        guest: u64,
        lane: u64,
    },
    Remove,
    /// The host says that it hangs.
    Ping {
        guest: u64,
        lane: u64,
    },
}

#[derive(Debug)]
struct Ask {
    pending: Pending,
    purpose: Purpose,
    worker: usize,
    generation: u32,
    number: u32,
}

impl Ask {
    /// Worker, its generation, and the lane's number there.
    fn place(&self) -> (usize, u32, u32) {
        (self.worker, self.generation, self.number)
    }

    fn is_ping_for(&self, number: u64) -> bool {
        matches!(self.purpose, Purpose::Ping { lane, .. } if lane == number)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Server {
    shared: Arc<Shared>,
    /// What hosts were told of.
    catalog: Arc<Catalog>,
    terms: Terms,
    door: Option<Door>,
    wake: Arc<OwnedFd>,
    guests: BTreeMap<u64, Guest>,
    next_number: u64,
    posts: Vec<Post>,
    asks: Vec<Ask>,
    /// Lanes that workers have dropped in this round, by worker, generation and number: they may have cut them just before.
    removed: Vec<(usize, u32, u32)>,
    errands: Errands,
    /// Nobody is let in before, and nothing offered.
    pause_until: Instant,
    lapse: Lapse,
    /// Ends of connections.
    ended: Rate,
    buffer: Box<[u8; PACKET_BYTES_MAX]>,
}

/// Why a guest has to go; `None` where it has gone.
type Dismissal = Option<String>;

impl Server {
    pub(crate) fn new(shared: Arc<Shared>, terms: Terms, door: Door) -> io::Result<Self> {
        let wake = Arc::new(eventfd::create()?);
        shared.bulletin.read_by(Arc::clone(&wake));
        let posts = shared.seats.iter().map(|_| Post::default()).collect();
        let lapse = Lapse::new(Duration::from_nanos(terms.stall_ns), Instant::now());
        Ok(Self {
            catalog: shared.catalog.load_full(),
            shared,
            terms,
            door: Some(door),
            wake,
            guests: BTreeMap::new(),
            next_number: 0,
            posts,
            asks: Vec::new(),
            removed: Vec::new(),
            errands: Errands::default(),
            pause_until: Instant::now(),
            lapse,
            ended: Rate::default(),
            buffer: Box::new([0; PACKET_BYTES_MAX]),
        })
    }

    /// Runs until the node is over. All connections are closed then.
    pub(crate) fn run(mut self) {
        self.look_at_workers();
        while !self.shared.bulletin.is_over() {
            self.close_door();
            if let Some((door, (users, groups))) =
                self.door.as_mut().zip(self.shared.bulletin.take_admitted())
            {
                door.admit(users, groups);
            }
            self.wait();
            self.look_at_answers();
            self.look_at_errands();
            self.look_at_functions();
            self.look_at_workers();
            self.look_at_cuts();
            self.offer_lanes();
            self.tell_who_is_ready();
            self.look_at_limits();
        }
        // A node that gives its calls no time may be over before this thread has come round once.
        self.close_door();
    }

    /// Where the node is on its way out, its hosts are told so, once.
    fn close_door(&mut self) {
        let is_leaving = self.shared.is_closed() || self.shared.bulletin.turns_away();
        if is_leaving && self.door.take().is_some() {
            self.tell_all(&ToHost::Closing);
        }
    }

    /// Sleeps until there is something to do, and listens to who has come and who has spoken.
    fn wait(&mut self) {
        let mut fds: Vec<(BorrowedFd<'_>, bool)> = vec![(self.wake.as_fd(), false)];
        let mut whose = vec![None];
        let now = Instant::now();
        if let Some(door) = self.door.as_ref().filter(|_| self.pause_until <= now) {
            fds.push((door.as_fd(), false));
            whose.push(None);
        }
        let watches_door = fds.len() == 2;
        for (number, guest) in &self.guests {
            fds.push(guest.socket());
            whose.push(Some((*number, false)));
            if let Some(process) = guest.process() {
                fds.push((process, false));
                whose.push(Some((*number, true)));
            }
        }
        let mut ready = vec![false; fds.len()];
        let timeout = self.timeout(now);
        self.lapse.sleeps(now, timeout);
        if let Err(error) = poll::ready(&fds, &mut ready, timeout) {
            tracing::error!(%error, "the attach server cannot wait");
            std::thread::sleep(PAUSE);
        }
        self.notice_lapse();
        if ready[0] {
            let _ = eventfd::drain(self.wake.as_fd());
        }
        if watches_door && ready[1] {
            self.let_in();
        }
        for (who, _) in whose.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            match who {
                Some((guest, true)) => self.part(guest, None),
                Some((guest, false)) => self.listen(guest),
                None => {}
            }
        }
    }

    /// Where the whole node has stood still, whoever should have answered meanwhile has time anew.
    fn notice_lapse(&mut self) {
        let now = Instant::now();
        if self.lapse.wakes(now) {
            let until = self.lapse.until(now);
            self.guests.values_mut().for_each(|guest| guest.has_time_until(until));
        }
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        let limits = self.guests.values().filter_map(Guest::next_limit);
        let pauses = self.guests.values().map(|guest| guest.pause_until).chain([self.pause_until]);
        let next = limits.chain(pauses.filter(|time| *time > now)).min();
        next.map(|time| time.saturating_duration_since(now))
    }

    /// A number that no guest and no lane of this server has had.
    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }
}

impl Drop for Server {
    /// A bug in here is the end of all connections, and of nothing else: hosts learn it by that, and their calls are dropped by the workers.
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the attach server has panicked: hosts cannot attach to this node any more");
            // The same bug may be met again on the way; a panic that left this would end the whole process.
            let end = std::panic::AssertUnwindSafe(|| {
                for number in self.guests.keys().copied().collect::<Vec<_>>() {
                    self.part(number, None);
                }
            });
            if std::panic::catch_unwind(end).is_err() {
                let left = self.guests.values().filter(|guest| guest.is_attached()).count();
                self.shared.bulletin.attached(-i32::try_from(left).unwrap_or(i32::MAX));
            }
        }
    }
}
