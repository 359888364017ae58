//! A connection that was let in, and the lanes that came by it: from their offer to their end.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use microfaas_control::attach::{Complaint, FDS_MAX, FromHost};
use microfaas_control::{decode, encode};
use microfaas_lane::layout::Geometry;
use microfaas_sys::clock::monotonic_ns;
use microfaas_sys::socket;

use crate::attach::session::{Letter, Session};
use crate::call::nanoseconds;
use crate::lane::{Lane, Shut};
use crate::lapse::Lapse;
use crate::memory::{LaneMemory, RegionFds};
use crate::node::Shared;
use crate::seat::Seat;
use crate::watch;

/// Between two complaints about a worker that hangs, at least.
const COMPLAINS_EACH: Duration = Duration::from_millis(100);

/// A lane, from its offer to its end.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) lane: Arc<Lane>,
    pub(super) open: bool,
    /// The node was told that its worker lies.
    pub(super) told: bool,
    /// When the node was last told that its worker hangs.
    pub(super) told_that_it_hangs: Option<Instant>,
}

impl Held {
    pub(super) fn new(lane: Lane) -> Self {
        Self { lane: Arc::new(lane), open: false, told: false, told_that_it_hangs: None }
    }
}

/// A connection that was let in.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) socket: OwnedFd,
    pub(super) stall_ns: u64,
    pub(super) lapse: Lapse,
    pub(super) lanes: BTreeMap<u64, Held>,
    /// The node is shutting down.
    pub(super) closing: bool,
}

impl Live {
    pub(super) fn new(session: Session) -> Self {
        let Session { socket, welcome, .. } = session;
        let stall_ns = welcome.stall_ns;
        let lapse = Lapse::new(Duration::from_nanos(stall_ns), Instant::now());
        Self { socket, stall_ns, lapse, lanes: BTreeMap::new(), closing: false }
    }

    /// The node reads at once, so it does not wait long where there is no room.
    pub(super) fn say(&self, message: &FromHost) -> io::Result<()> {
        let packet = encode(message).map_err(io::Error::other)?;
        socket::send(self.socket.as_fd(), &packet, &[])
    }

    /// The next packet, if there is one; without its descriptors where this process cannot take them all.
    pub(super) fn hear(&self, buffer: &mut [u8]) -> io::Result<Option<Letter>> {
        match socket::try_recv_what_fits(self.socket.as_fd(), buffer, FDS_MAX) {
            Ok(packet) if packet.len == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(packet) if packet.lost_fds => {
                let message = decode(&buffer[..packet.len]).map_err(io::Error::other)?;
                Ok(Some((message, Vec::new())))
            }
            Ok(packet) => decode(&buffer[..packet.len])
                .map(|message| Some((message, packet.fds)))
                .map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Maps an offered lane, or says why not: calls on other lanes are not to end for it. What this process could not do, it returns.
    pub(super) fn map(
        &mut self,
        shared: &Arc<Shared>,
        lane: u64,
        worker: u32,
        geometry: Geometry,
        fds: Vec<OwnedFd>,
    ) -> io::Result<Option<io::Error>> {
        let Some(seat) = shared.seats.get(worker as usize) else {
            // The node has been restarted with more workers than it had.
            return self.say(&FromHost::Complaint { lane, about: Complaint::Unwanted }).map(|()| None);
        };
        geometry.check().map_err(io::Error::other)?;
        match take(shared, seat, worker, geometry, fds) {
            Ok(made) => {
                self.lanes.insert(lane, Held::new(made));
                self.say(&FromHost::Mapped { lane }).map(|()| None)
            }
            Err(error) => {
                tracing::warn!(worker, %error, "a lane to a worker cannot be taken now");
                self.say(&FromHost::Complaint { lane, about: Complaint::Untaken })?;
                Ok(Some(error))
            }
        }
    }

    pub(super) fn open(&mut self, shared: &Shared, lane: u64) {
        let Some(held) = self.lanes.get_mut(&lane) else { return };
        held.open = true;
        if !self.closing {
            let worker = held.lane.worker as usize;
            // It is another process, for all that is known.
            shared.stock.leaves(worker);
            shared.seats[worker].open(Arc::clone(&held.lane));
        }
    }
}

/// Makes a lane of what has come with its offer.
fn take(
    shared: &Arc<Shared>,
    seat: &Seat,
    worker: u32,
    geometry: Geometry,
    fds: Vec<OwnedFd>,
) -> io::Result<Lane> {
    let [event, down, bulk, up, process] = <[OwnedFd; FDS_MAX]>::try_from(fds)
        .map_err(|fds| io::Error::other(format!("{} descriptors with a lane, not {FDS_MAX}", fds.len())))?;
    let memory = LaneMemory::map(geometry, RegionFds { down, bulk, up })?;
    shared.hub.listen(event.as_fd())?;
    let (hub, load, counters) = (Arc::clone(&shared.hub), Arc::clone(&seat.load), Arc::clone(&seat.counters));
    Ok(Lane::new(memory, worker, event, hub, process.into(), load, counters))
}

/// Takes a lane out of use, and settles what is in flight on it.
pub(super) fn close(shared: &Shared, lane: &Arc<Lane>, why: Shut) {
    let seat = &shared.seats[lane.worker as usize];
    if seat.lane().is_some_and(|open| Arc::ptr_eq(&open, lane)) {
        seat.close_counted(lane);
    }
    lane.shut_down(why);
}

/// What is due next; tells the node of what is wrong.
pub(super) fn next_due(live: &mut Live) -> u64 {
    let now = Instant::now();
    let grace = live.lapse.grace(now);
    // A node that has stood still says nothing to a complaint at first.
    let again = Duration::from_nanos(live.stall_ns).max(COMPLAINS_EACH);
    let in_ns = |time: Duration| monotonic_ns().saturating_add(nanoseconds(time));
    let mut next = grace.map_or(u64::MAX, in_ns);
    let mut complaints = Vec::new();
    for (number, held) in live.lanes.iter_mut().filter(|(_, held)| held.open) {
        if held.lane.is_shut() {
            // Found lying by a caller.
            held.lane.hub.orphans.add(&held.lane);
            if !std::mem::replace(&mut held.told, true) {
                complaints.push((*number, Complaint::Violation));
            }
            continue;
        }
        let look = watch::look(&held.lane, live.stall_ns);
        next = next.min(look.next_ns);
        if look.hung.is_none() || grace.is_some() {
            continue;
        }
        let left = held.told_that_it_hangs.map(|told| again.saturating_sub(now.duration_since(told)));
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            next = next.min(in_ns(left));
            continue;
        }
        held.told_that_it_hangs = Some(now);
        next = next.min(in_ns(again));
        tracing::warn!(worker = held.lane.worker, "worker hangs in a call, the node is told");
        complaints.push((*number, Complaint::Hangs));
    }
    for (lane, about) in complaints {
        // A connection that is broken is noticed when it is read.
        let _ = live.say(&FromHost::Complaint { lane, about });
    }
    next
}
