//! From an offer to the end of a lane, and what is asked of workers on the way.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use microfaas_control::attach::{Complaint, ToHost};
use microfaas_control::{LaneSpec, ToNode, ToWorker};
use microfaas_sys::eventfd;
use microfaas_sys::process::Signaller;

use crate::attach::bulletin::Cut;
use crate::attach::guest::{GuestLane, Progress};
use crate::attach::server::guests::say;
use crate::attach::server::{Ask, Dismissal, PAUSE, Post, Purpose, Server};
use crate::command::{Answer, AskError, AskResult, Question};
use crate::completion::printable;
use crate::memory::RegionFds;

/// How long a host may take to map a lane.
const MAP_WITHIN: Duration = Duration::from_secs(10);
/// Until a host is offered another lane that could not take one.
const UNTAKEN_PAUSE: Duration = Duration::from_millis(500);
/// How long a worker may take to map or drop a lane.
const SERVE_WITHIN: Duration = Duration::from_secs(10);

impl Server {
    pub(super) fn offer_lanes(&mut self) {
        if self.door.is_none() || self.pause_until > Instant::now() {
            return;
        }
        for worker in 0..self.posts.len() {
            let Post { serves, generation, .. } = self.posts[worker];
            let wanting = self.guests.iter().filter(|(_, guest)| serves && guest.wants(worker, generation));
            for number in wanting.map(|(number, _)| *number).collect::<Vec<_>>() {
                if let Err(error) = self.offer(number, worker, generation) {
                    tracing::warn!(%error, "no lane can be made for a host now");
                    self.pause_until = Instant::now() + PAUSE;
                    return;
                }
            }
        }
    }

    fn offer(&mut self, number: u64, worker: usize, generation: u32) -> io::Result<()> {
        let lane = self.number();
        let Some(process) = self.process(worker, generation)? else { return Ok(()) };
        let fds = RegionFds::create(&self.terms.geometry)?;
        let event = Arc::new(eventfd::create()?);
        let list = [&fds.down, &fds.bulk, &fds.up].map(OwnedFd::try_clone);
        let [down, bulk, up] = list;
        let beside =
            vec![Arc::clone(&event), Arc::new(down?), Arc::new(bulk?), Arc::new(up?), process.descriptor()];
        // Where all are taken, one comes back when a worker has dropped the lane of a host that has gone, which is then looked at again.
        let Some(taken) = self.posts[worker].numbers.take() else { return Ok(()) };
        let Some(guest) = self.guests.get_mut(&number) else { return Ok(()) };
        let progress = Progress::Offered { fds, event, until: Instant::now() + MAP_WITHIN };
        guest.lanes.insert(lane, GuestLane { worker, generation, number: taken, progress });
        let worker = u32::try_from(worker).unwrap_or(u32::MAX);
        let offer = ToHost::Offer { lane, worker, geometry: self.terms.geometry };
        if let Err(error) = guest.say(&offer, beside) {
            self.part(number, Some(error.to_string()));
        }
        Ok(())
    }

    /// A descriptor of a worker's process for a host, opened anew: the flags of one that the node waits by are not to be another's to change.
    fn process(&self, worker: usize, generation: u32) -> io::Result<Option<Signaller>> {
        let pid = || {
            let info = self.shared.seats[worker].info();
            info.pid.filter(|_| info.generation == generation)
        };
        let Some(number) = pid() else { return Ok(None) };
        let process = Signaller::open(number);
        // The supervisor takes the number out of the seat before it can pass to another process.
        if pid() == Some(number) { process.map(Some) } else { Ok(None) }
    }

    /// A guest has mapped a lane: its worker gets it.
    pub(super) fn add(&mut self, number: u64, lane: u64) -> Result<(), Dismissal> {
        let guest = self.guests.get_mut(&number).ok_or(None)?;
        // Its worker may have ended meanwhile, which the guest was told.
        let Some(held) = guest.lanes.get_mut(&lane) else { return Ok(()) };
        let Progress::Offered { fds, event, .. } = &held.progress else {
            return Err(Some("a lane that was not offered".to_owned()));
        };
        let event = Arc::clone(event);
        let fds = fds.for_worker().map_err(|error| Some(format!("the lane cannot be sealed: {error}")))?;
        held.progress = Progress::Adding;
        let message = ToWorker::AddLane(LaneSpec {
            lane: held.number,
            geometry: self.terms.geometry,
            copies: !guest.is_own,
        });
        let fds = vec![event, Arc::new(fds.down), Arc::new(fds.bulk), Arc::new(fds.up)];
        let (worker, generation, taken) = (held.worker, held.generation, held.number);
        self.ask(
            Purpose::Add { guest: number, lane },
            (worker, generation, taken),
            message,
            fds,
            SERVE_WITHIN,
        );
        Ok(())
    }

    fn ask(
        &mut self,
        purpose: Purpose,
        (worker, generation, number): (usize, u32, u32),
        message: ToWorker,
        fds: Vec<Arc<OwnedFd>>,
        within: Duration,
    ) {
        let question = Question { message, fds, within, generation: Some(generation) };
        let pending = self.shared.desk.post_waking(worker, question, Some(Arc::clone(&self.wake)));
        self.asks.push(Ask { pending, purpose, worker, generation, number });
    }

    /// Has a worker drop a lane. Its number is free when it has.
    fn remove(&mut self, lane: &GuestLane) {
        let place = (lane.worker, lane.generation, lane.number);
        self.ask(
            Purpose::Remove,
            place,
            ToWorker::RemoveLane { lane: lane.number },
            Vec::new(),
            SERVE_WITHIN,
        );
    }

    pub(super) fn complaint(&mut self, number: u64, lane: u64, about: Complaint) {
        let Some(guest) = self.guests.get_mut(&number) else { return };
        let Some(held) = guest.lanes.get(&lane) else { return };
        let (worker, generation, taken) = (held.worker, held.generation, held.number);
        match about {
            Complaint::Unwanted => {
                guest.shunned.push((worker, generation));
                self.withdraw(number, lane, "as you wish", PAUSE);
            }
            Complaint::Untaken => self.withdraw(number, lane, "there will be another offer", UNTAKEN_PAUSE),
            Complaint::Violation if guest.is_own => {
                // The word of one's own user ends a worker, as the node's own eyes do.
                tracing::warn!(
                    worker,
                    "a host says that the worker broke the lane's protocol, it will be replaced"
                );
                self.end_worker(worker, generation);
            }
            Complaint::Violation => self.withdraw(number, lane, "as you wish", PAUSE),
            Complaint::Hangs if self.asks.iter().any(|ask| ask.is_ping_for(lane)) => {}
            Complaint::Hangs => {
                let within = Duration::from_nanos(self.terms.stall_ns).max(PAUSE);
                let purpose = Purpose::Ping { guest: number, lane };
                self.ask(purpose, (worker, generation, taken), ToWorker::Ping, Vec::new(), within);
            }
        }
    }

    /// Has the supervisor replace a worker, if it is still that one.
    fn end_worker(&self, worker: usize, generation: u32) {
        let seat = &self.shared.seats[worker];
        if let Some(lane) = seat.lane().filter(|_| seat.info().generation == generation) {
            let _ = lane.signaller.kill();
        }
    }

    /// Takes a lane back from a guest that stays; it is offered another one, after a pause.
    fn withdraw(&mut self, number: u64, lane: u64, reason: &str, pause: Duration) {
        let Some(guest) = self.guests.get_mut(&number) else { return };
        let Some(held) = guest.lanes.remove(&lane) else { return };
        guest.pause_until = Instant::now() + pause;
        let told = say(guest, &ToHost::Gone { lane, reason: reason.to_owned() });
        self.let_go(held);
        if let Err(dismissal) = told {
            self.part(number, dismissal);
        }
    }

    /// A lane that no guest has any more.
    pub(super) fn let_go(&mut self, lane: GuestLane) {
        match lane.progress {
            Progress::Offered { .. } => {
                if self.posts[lane.worker].generation == lane.generation {
                    self.posts[lane.worker].numbers.give_back(lane.number);
                }
            }
            // When the worker has it, it will be found that nobody wants it.
            Progress::Adding => {}
            Progress::Open => self.remove(&lane),
        }
    }

    pub(super) fn look_at_answers(&mut self) {
        let mut open = Vec::with_capacity(self.asks.len());
        for ask in std::mem::take(&mut self.asks) {
            match ask.pending.look() {
                None => open.push(ask),
                Some(answer) => self.answered(ask, answer),
            }
        }
        self.asks.append(&mut open);
    }

    /// Where a worker has cut a lane, it said before that it has it, which nobody may have looked at yet.
    fn look_at_added(&mut self, place: (usize, u32, u32)) {
        let is_it = |ask: &Ask| matches!(ask.purpose, Purpose::Add { .. }) && ask.place() == place;
        if let Some(at) = self.asks.iter().position(is_it)
            && let Some(answer) = self.asks[at].pending.look()
        {
            let ask = self.asks.remove(at);
            self.answered(ask, answer);
        }
    }

    fn answered(&mut self, ask: Ask, answer: AskResult) {
        let Ask { purpose, worker, generation, number: taken, .. } = ask;
        let message = match (answer, &purpose) {
            (Ok(Answer { message, .. }), _) => message,
            (Err(AskError::Unsendable(reason)), Purpose::Add { guest, lane }) => {
                self.free(worker, generation, taken);
                return self.withdraw(*guest, *lane, &reason, PAUSE);
            }
            // A worker that cannot be told to drop a lane would serve it for ever.
            (Err(AskError::Unsendable(_)), Purpose::Remove) => return self.end_worker(worker, generation),
            // One that did not answer has ended, and all its lanes with it: the seats say so.
            (Err(_), _) => return,
        };
        match (purpose, message) {
            (Purpose::Add { guest, lane }, ToNode::LaneAdded { .. }) => {
                self.opened(guest, lane, (worker, generation, taken))
            }
            (Purpose::Add { guest, lane }, ToNode::LaneRefused { reason, .. }) => {
                self.free(worker, generation, taken);
                self.cut_off(guest, lane, &printable(reason.as_bytes()));
            }
            (Purpose::Remove, _) => {
                self.removed.push((worker, generation, taken));
                self.free(worker, generation, taken);
            }
            // It may only just have woken, with its whole node. A host that is not content says so again.
            (Purpose::Ping { .. }, _)
                if self.lapse.grace(Instant::now()).is_some() || self.shared.bulletin.forgives() => {}
            // It listens, so it has lost the call, or the host is wrong.
            (Purpose::Ping { guest, lane }, _) => {
                self.withdraw(guest, lane, "the worker does not hang", PAUSE)
            }
            (Purpose::Add { .. }, _) => {}
        }
    }

    fn free(&mut self, worker: usize, generation: u32, number: u32) {
        if self.posts[worker].generation == generation {
            self.posts[worker].numbers.give_back(number);
        }
    }

    fn opened(&mut self, number: u64, lane: u64, (worker, generation, taken): (usize, u32, u32)) {
        let held = self.guests.get_mut(&number).and_then(|guest| guest.lanes.get_mut(&lane));
        let Some(held) = held else {
            // Its host has gone meanwhile.
            return self.remove(&GuestLane { worker, generation, number: taken, progress: Progress::Open });
        };
        held.progress = Progress::Open;
        if let Some(Err(dismissal)) =
            self.guests.get_mut(&number).map(|guest| say(guest, &ToHost::Open { lane }))
        {
            self.part(number, dismissal);
        }
    }

    /// A worker does not serve a guest's lane any more, and is offered none by this guest again.
    fn cut_off(&mut self, number: u64, lane: u64, reason: &str) {
        let Some(guest) = self.guests.get_mut(&number) else { return };
        let Some(held) = guest.lanes.remove(&lane) else { return };
        tracing::warn!(
            pid = guest.pid,
            uid = guest.uid,
            worker = held.worker,
            reason,
            "a worker has cut a host off"
        );
        guest.shunned.retain(|(worker, _)| *worker != held.worker);
        guest.shunned.push((held.worker, held.generation));
        if let Err(dismissal) = say(guest, &ToHost::Gone { lane, reason: reason.to_owned() }) {
            self.part(number, dismissal);
        }
    }

    pub(super) fn look_at_cuts(&mut self) {
        for Cut { worker, generation, number, reason } in self.shared.bulletin.take_cuts() {
            self.look_at_added((worker, generation, number));
            let is_it = |lane: &GuestLane| {
                (lane.worker, lane.generation, lane.number) == (worker, generation, number)
                    && matches!(lane.progress, Progress::Open)
            };
            let found = self.guests.iter().find_map(|(guest, g)| {
                g.lanes.iter().find(|(_, lane)| is_it(lane)).map(|(lane, _)| (*guest, *lane))
            });
            let Some((guest, lane)) = found else {
                // The lane of a host that has gone in the same moment is being removed. There is no other reason.
                let place = (worker, generation, number);
                let is_leaving = |ask: &Ask| matches!(ask.purpose, Purpose::Remove) && ask.place() == place;
                if !self.removed.contains(&place) && !self.asks.iter().any(is_leaving) {
                    tracing::warn!(
                        worker,
                        number,
                        "worker cuts a lane that it does not have, it will be replaced"
                    );
                    self.end_worker(worker, generation);
                }
                continue;
            };
            self.cut_off(guest, lane, &reason);
            self.remove(&GuestLane { worker, generation, number, progress: Progress::Open });
        }
        self.removed.clear();
    }
}
