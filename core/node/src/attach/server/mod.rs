//! The thread that lets hosts in and gives them lanes. See the module above.

mod errands;
mod lanes;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use microfaas_control::attach::{FromHost, Function, ToHost, VERSION, Welcome, Worker};
use microfaas_control::rate::Rate;
use microfaas_control::{PACKET_BYTES_MAX, encode};
use microfaas_lane::layout::Geometry;
use microfaas_sys::clock::monotonic_ns;
use microfaas_sys::local::{self, Peer};
use microfaas_sys::{eventfd, poll};

use crate::attach::door::Door;
use crate::attach::guest::{Guest, GuestLane, Progress, Said, Stage};
use crate::attach::numbers::Numbers;
use crate::attach::server::errands::Errands;
use crate::call::nanoseconds;
use crate::catalog::Catalog;
use crate::command::Pending;
use crate::function::FunctionInfo;
use crate::lapse::Lapse;
use crate::names::Entry;
use crate::node::Shared;
use crate::seat::WorkerState;

/// How long a connection may say nothing at first.
const GREET_WITHIN: Duration = Duration::from_secs(2);
/// Between two lanes to the same worker, and after something could not be made.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections of one user beside those of attached hosts.
const CALLERS_MAX: usize = 32;
/// Of the table's rows in one packet, if it is more than one: the longest row is half a packet.
const PART_BYTES: usize = PACKET_BYTES_MAX / 4;
/// Packets taken from one connection before the next is looked at.
const PACKETS: usize = 16;
/// Connections whose end is logged within a second: anybody who can open the socket can have as many as he likes.
const LOGGED_PER_SECOND: u32 = 100;

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
            let is_leaving = self.shared.is_closed() || self.shared.bulletin.turns_away();
            if is_leaving && self.door.take().is_some() {
                self.tell_all(&ToHost::Closing);
            }
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

    fn let_in(&mut self) {
        for _ in 0..PACKETS {
            let Some(door) = &self.door else { return };
            let socket = match door.accept() {
                Ok(socket) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Out of descriptors, say. Who has come waits.
                    tracing::warn!(%error, "a host cannot be let in now");
                    self.pause_until = Instant::now() + PAUSE;
                    return;
                }
            };
            let Ok(peer) = local::peer(socket.as_fd()) else { continue };
            self.receive(socket, peer);
        }
    }

    fn receive(&mut self, socket: OwnedFd, peer: Peer) {
        let Some(door) = &self.door else { return };
        let (is_own, admitted) = (door.is_own(&peer), door.admits(&peer));
        let uid = peer.uid;
        let undecided = self.guests.values().filter(|guest| !guest.is_attached());
        let others = undecided.filter(|guest| guest.uid == uid).count();
        let guest = Guest::new(socket, peer, is_own, Instant::now() + GREET_WITHIN);
        let number = self.number();
        self.guests.insert(number, guest);
        if !admitted {
            self.part(number, Some(format!("user {uid} is not on the list of those who may attach")));
        } else if others >= CALLERS_MAX {
            self.part(number, Some(format!("{others} connections have not said what they want, come again")));
        }
    }

    /// Takes what a guest has said.
    fn listen(&mut self, number: u64) {
        for _ in 0..PACKETS {
            let Some(guest) = self.guests.get_mut(&number) else { return };
            let result = guest.flush().map_err(|error| Some(error.to_string())).and_then(|()| {
                match guest.hear(&mut self.buffer) {
                    Ok(Said::Message(message)) => Ok(Some(message)),
                    Ok(Said::Nothing) => Ok(None),
                    Ok(Said::End) => Err(None),
                    Err(error) => Err(Some(error.to_string())),
                }
            });
            match result.and_then(|message| message.map(|message| self.obey(number, message)).transpose()) {
                Ok(Some(())) => {}
                Ok(None) => return,
                Err(dismissal) => return self.part(number, dismissal),
            }
        }
    }

    fn obey(&mut self, number: u64, message: FromHost) -> Result<(), Dismissal> {
        let stage = self.guests.get(&number).ok_or(None)?.stage;
        match (stage, message) {
            (Stage::Greeting(_), FromHost::Hello { version, lanes }) => self.greet(number, version, lanes),
            (Stage::Attached { .. }, FromHost::Mapped { lane }) => self.add(number, lane),
            (Stage::Attached { .. }, FromHost::Complaint { lane, about }) => {
                self.complaint(number, lane, about);
                Ok(())
            }
            (Stage::Asking | Stage::Attached { .. }, FromHost::Admin { id, request }) => {
                match self.begin_errand(number, id, request) {
                    Ok(()) => Ok(()),
                    Err(reason) => {
                        let guest = self.guests.get_mut(&number).ok_or(None)?;
                        say(guest, &ToHost::Admin { id, answer: Err(reason) })
                    }
                }
            }
            _ => Err(Some("a message that does not belong there".to_owned())),
        }
    }

    fn greet(&mut self, number: u64, version: u32, lanes: bool) -> Result<(), Dismissal> {
        if version != VERSION {
            return Err(Some(format!("version {version} of the protocol, this node speaks {VERSION}")));
        }
        let attached = self.guests.values().filter(|guest| guest.is_attached()).count();
        let guest = self.guests.get(&number).ok_or(None)?;
        if !lanes && !guest.is_own {
            return Err(Some(format!("user {} may not administrate this node", guest.uid)));
        }
        if lanes && self.door.is_none() {
            return Err(Some("the node is shutting down".to_owned()));
        }
        if lanes && attached >= self.terms.hosts_max as usize {
            return Err(Some(format!("{attached} hosts are attached, which is the most")));
        }
        let news: Vec<ToHost> = (0..self.posts.len()).filter_map(|worker| self.news(worker)).collect();
        let table = self.table();
        let guest = self.guests.get_mut(&number).ok_or(None)?;
        guest.stage = if lanes { Stage::Attached { ready: false } } else { Stage::Asking };
        if lanes {
            tracing::info!(pid = guest.pid, uid = guest.uid, "host attaches");
            self.shared.bulletin.attached(1);
        }
        say(
            guest,
            &ToHost::Welcome(Welcome {
                version: VERSION,
                workers: u32::try_from(self.posts.len()).unwrap_or(u32::MAX),
                spin_ns: self.terms.spin_ns,
                stall_ns: self.terms.stall_ns,
            }),
        )?;
        guest.say_table(&table).map_err(dismissal)?;
        news.iter().try_for_each(|message| say(guest, message))
    }

    /// The table of functions, in at least one part.
    fn table(&self) -> Vec<ToHost> {
        let entry = |info: &FunctionInfo| self.shared.names.resolve(info.id);
        let functions: Vec<Function> =
            self.catalog.functions.iter().filter_map(|info| Some(row(entry(info)?, info))).collect();
        let mut parts = vec![Vec::new()];
        let mut room = PART_BYTES;
        for function in functions {
            let bytes = encode(&function).map_or(0, |packet| packet.len());
            if bytes > room {
                parts.push(Vec::new());
                room = PART_BYTES;
            }
            room = room.saturating_sub(bytes);
            parts.last_mut().expect("there is one from the start").push(function);
        }
        let count = parts.len();
        let part = |(i, functions)| ToHost::Functions { first: i == 0, last: i + 1 == count, functions };
        parts.into_iter().enumerate().map(part).collect()
    }

    /// Tells all of a change of the functions. Calls that come by an old number meanwhile go to the function's current version.
    fn look_at_functions(&mut self) {
        let catalog = self.shared.catalog.load_full();
        if Arc::ptr_eq(&catalog, &self.catalog) {
            return;
        }
        self.catalog = catalog;
        let table = self.table();
        self.each_guest(|guest| guest.say_table(&table).map_err(dismissal));
    }

    /// What a worker's place is doing.
    fn news(&self, worker: usize) -> Option<ToHost> {
        let seat = self.shared.seats.get(worker)?;
        let info = seat.info();
        let pid = info.pid.filter(|_| info.state == WorkerState::Serving);
        let sandbox = seat.sandbox();
        let (index, cpu, generation, restarts) = (info.index, info.cpu, info.generation, info.restarts);
        Some(ToHost::Worker(Worker { index, pid, cpu, generation, restarts, sandbox }))
    }

    fn tell_all(&mut self, message: &ToHost) {
        self.each_guest(|guest| say(guest, message));
    }

    fn each_guest(&mut self, mut tell: impl FnMut(&mut Guest) -> Result<(), Dismissal>) {
        let failed: Vec<(u64, Dismissal)> = self
            .guests
            .iter_mut()
            .filter(|(_, guest)| guest.is_attached())
            .filter_map(|(number, guest)| Some((*number, tell(guest).err()?)))
            .collect();
        for (number, dismissal) in failed {
            self.part(number, dismissal);
        }
    }

    /// Notices which workers have come and gone.
    fn look_at_workers(&mut self) {
        for worker in 0..self.posts.len() {
            let info = self.shared.seats[worker].info();
            if info.state == WorkerState::Stopped {
                // With the node itself, which its hosts learn by the end of their connections.
                return;
            }
            let (serves, generation) = (info.state == WorkerState::Serving, info.generation);
            let post = &mut self.posts[worker];
            if (post.serves, post.generation) == (serves, generation) {
                continue;
            }
            *post = Post { serves, generation, numbers: Numbers::default() };
            for number in self.guests.keys().copied().collect::<Vec<_>>() {
                self.drop_lanes(number, |lane| {
                    lane.worker == worker && (lane.generation != generation || !serves)
                });
            }
            if let Some(news) = self.news(worker) {
                self.tell_all(&news);
            }
        }
    }

    /// Tells a guest of lanes whose worker has gone.
    fn drop_lanes(&mut self, number: u64, is_lost: impl Fn(&GuestLane) -> bool) {
        let Some(guest) = self.guests.get_mut(&number) else { return };
        let lost: Vec<u64> =
            guest.lanes.iter().filter(|(_, lane)| is_lost(lane)).map(|(number, _)| *number).collect();
        for lane in lost {
            guest.lanes.remove(&lane);
            let reason = "the worker has ended".to_owned();
            if let Err(dismissal) = say(guest, &ToHost::Gone { lane, reason }) {
                return self.part(number, dismissal);
            }
        }
    }

    fn tell_who_is_ready(&mut self) {
        let mut failed = Vec::new();
        for (number, guest) in &mut self.guests {
            if guest.stage != (Stage::Attached { ready: false }) {
                continue;
            }
            let served =
                self.posts.iter().enumerate().filter(|(_, post)| post.serves).all(|(worker, post)| {
                    guest.shunned.contains(&(worker, post.generation))
                        || guest
                            .lanes
                            .values()
                            .any(|lane| lane.worker == worker && matches!(lane.progress, Progress::Open))
                });
            if served {
                guest.stage = Stage::Attached { ready: true };
                failed.extend(say(guest, &ToHost::Ready).err().map(|dismissal| (*number, dismissal)));
            }
        }
        for (number, dismissal) in failed {
            self.part(number, dismissal);
        }
    }

    fn look_at_limits(&mut self) {
        self.notice_lapse();
        let now = Instant::now();
        let late = |guest: &Guest| guest.next_limit().is_some_and(|limit| limit <= now);
        let late: Vec<u64> = self.guests.iter().filter(|(_, g)| late(g)).map(|(number, _)| *number).collect();
        for number in late {
            self.part(number, Some("no answer in time".to_owned()));
        }
    }

    /// Ends a connection, and takes all lanes of the host back. It learns the reason, where it still reads.
    fn part(&mut self, number: u64, dismissal: Dismissal) {
        let Some(mut guest) = self.guests.remove(&number) else { return };
        let (pid, uid) = (guest.pid, guest.uid);
        let is_logged = self.ended.count(monotonic_ns()) <= LOGGED_PER_SECOND;
        match &dismissal {
            Some(reason) => {
                if is_logged {
                    tracing::warn!(pid, uid, reason, "host is shown out");
                }
                let _ = guest.say(&ToHost::Refused { reason: reason.clone() }, Vec::new());
            }
            None if is_logged => tracing::info!(pid, uid, "host has gone"),
            None => {}
        }
        if guest.is_attached() {
            self.shared.bulletin.attached(-1);
        }
        for lane in std::mem::take(&mut guest.lanes).into_values() {
            self.let_go(lane);
        }
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

/// Says something to a guest, which has to go where it cannot be told.
fn say(guest: &mut Guest, message: &ToHost) -> Result<(), Dismissal> {
    say_with(guest, message, Vec::new())
}

fn say_with(guest: &mut Guest, message: &ToHost, fds: Vec<Arc<OwnedFd>>) -> Result<(), Dismissal> {
    guest.say(message, fds).map_err(dismissal)
}

fn dismissal(error: io::Error) -> Dismissal {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => None,
        _ => Some(error.to_string()),
    }
}

fn row(entry: Entry, function: &FunctionInfo) -> Function {
    Function {
        id: entry.function,
        name: function.name.clone(),
        module: function.module.to_string_lossy().into_owned(),
        deadline_ns: nanoseconds(function.deadline),
        idempotent: function.idempotent,
        limits: function.limits,
        concurrency: function.concurrency,
        is_lazy: entry.is_lazy,
    }
}

#[cfg(test)]
mod tests {
    use microfaas_control::{ToNode, ToWorker};

    use super::*;
    use crate::attach::SocketConfig;
    use crate::attach::bulletin::Cut;
    use crate::command::Command;
    use crate::hub::Hub;
    use crate::seat::Seat;

    #[test]
    fn a_panic_ends_all_connections_and_takes_their_lanes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (shared, inbox) = Shared::new([Seat::new(0, None)].into(), Arc::new(Hub::new(0).unwrap()));
        let terms = Terms { geometry: Geometry::default(), spin_ns: 0, stall_ns: 0, hosts_max: 1 };
        let door = Door::open(&SocketConfig::new(&path)).unwrap();
        let mut server = Server::new(Arc::clone(&shared), terms, door).unwrap();
        let host = local::connect(&path).unwrap();
        server.let_in();
        let number = *server.guests.keys().next().unwrap();
        server.greet(number, VERSION, true).unwrap();
        let lane = GuestLane { worker: 0, generation: 0, number: 1, progress: Progress::Open };
        server.guests.get_mut(&number).unwrap().lanes.insert(7, lane);
        assert!(shared.bulletin.has_guests());
        let thread = std::thread::spawn(move || {
            let _server = server;
            std::panic::resume_unwind(Box::new("a bug"));
        });
        assert!(thread.join().is_err());
        assert!(!shared.bulletin.has_guests() && !path.exists());
        let asked = inbox.try_recv().unwrap();
        let Command::Ask { worker: 0, question, .. } = asked else { panic!("{asked:?}") };
        assert_eq!(question.message, ToWorker::RemoveLane { lane: 1 });
        // What it was told, and then the end.
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        while microfaas_sys::socket::recv(host.as_fd(), &mut buffer, 0, None).unwrap().len > 0 {}
    }

    fn guest(stall_ns: u64) -> (tempfile::TempDir, Server, OwnedFd, u64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let (shared, _) = Shared::new([Seat::new(0, None)].into(), Arc::new(Hub::new(0).unwrap()));
        let terms = Terms { geometry: Geometry::default(), spin_ns: 0, stall_ns, hosts_max: 1 };
        let door = Door::open(&SocketConfig::new(&path)).unwrap();
        let mut server = Server::new(shared, terms, door).unwrap();
        let host = local::connect(&path).unwrap();
        server.let_in();
        let number = *server.guests.keys().next().unwrap();
        (folder, server, host, number)
    }

    #[test]
    fn no_host_is_let_in_when_the_door_is_closed() {
        let (_folder, mut server, _host, number) = guest(0);
        server.door = None;
        assert!(server.greet(number, VERSION, true).is_err_and(|reason| reason.is_some()));
        assert!(!server.shared.bulletin.has_guests());
    }

    #[test]
    fn nobody_is_shown_out_for_the_time_in_which_the_node_stood_still() {
        let (_folder, mut server, _host, number) = guest(3_600_000_000_000);
        let past = Instant::now() - GREET_WITHIN;
        server.guests.get_mut(&number).unwrap().stage = Stage::Greeting(past);
        // It was to be awake two hours ago.
        server.lapse = Lapse::new(Duration::from_secs(3600), Instant::now() - Duration::from_secs(7200));
        server.look_at_limits();
        assert!(server.guests.contains_key(&number));
        server.guests.get_mut(&number).unwrap().stage = Stage::Greeting(past);
        server.look_at_limits();
        assert!(server.guests.is_empty(), "as ever");
    }

    /// The worker has said that it has the lane, and that it has cut it, between two looks. The host has written nonsense before it was told that the lane is open.
    #[test]
    fn a_lane_that_is_cut_as_soon_as_it_is_there_is_the_hosts_fault() {
        let (_folder, mut server, _host, number) = guest(0);
        server.greet(number, VERSION, true).unwrap();
        let lane = GuestLane { worker: 0, generation: 0, number: 1, progress: Progress::Adding };
        server.guests.get_mut(&number).unwrap().lanes.insert(7, lane);
        let (to, answer) = std::sync::mpsc::sync_channel(1);
        let purpose = Purpose::Add { guest: number, lane: 7 };
        server.asks.push(Ask { pending: Pending::of(answer), purpose, worker: 0, generation: 0, number: 1 });
        server.look_at_answers();
        to.send(Ok(crate::command::Answer { message: ToNode::LaneAdded { lane: 1 }, generation: 0 }))
            .unwrap();
        let cut = Cut { worker: 0, generation: 0, number: 1, reason: "nonsense".to_owned() };
        assert!(server.shared.bulletin.cut(cut));
        server.look_at_cuts();
        let guest = &server.guests[&number];
        assert_eq!(
            (guest.lanes.len(), guest.shunned.as_slice()),
            (0, [(0, 0)].as_slice()),
            "the worker is not"
        );
    }

    #[test]
    fn a_lane_stays_where_the_worker_may_only_just_have_woken() {
        let (_folder, mut server, _host, number) = guest(0);
        server.greet(number, VERSION, true).unwrap();
        let lane = GuestLane { worker: 0, generation: 0, number: 1, progress: Progress::Open };
        server.guests.get_mut(&number).unwrap().lanes.insert(7, lane);
        let pong = |server: &mut Server| {
            let (to, answer) = std::sync::mpsc::sync_channel(1);
            to.send(Ok(crate::command::Answer { message: ToNode::Pong, generation: 0 })).unwrap();
            let purpose = Purpose::Ping { guest: number, lane: 7 };
            let pending = Pending::of(answer);
            server.asks.push(Ask { pending, purpose, worker: 0, generation: 0, number: 1 });
            server.look_at_answers();
            server.guests[&number].lanes.contains_key(&7)
        };
        server.shared.bulletin.forgive(Duration::from_secs(3600));
        assert!(pong(&mut server));
        server.shared.bulletin.forgive(Duration::ZERO);
        assert!(!pong(&mut server), "it has lost the call");
    }
}
