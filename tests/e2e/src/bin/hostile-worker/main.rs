//! A worker that does what its calls and its environment tell it: echo honestly, die, hang, lie. It needs no code of a module.
//!
//! `MICROFAAS_TEST_BEHAVIOUR` says what happens during set-up: `echo` (nothing special), `die`, `babble`, `refuse`, `skip` (answers with the wrong message),
//! `fatal`, `mute-trial` (closes its ears and stays, where it has no core to keep to: in what tries modules out for a node whose workers have). After that, each function of the fake module is one way to treat a call.
#![expect(unsafe_code, reason = "maps the lane and takes over an inherited descriptor, as a worker does")]

mod attack;

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use microfaas_control::sandbox::SandboxReport;
use microfaas_control::{
    CONTROL_FD, FunctionSpec, LaneSpec, PACKET_BYTES_MAX, PACKET_FDS_MAX, ToNode, ToWorker, decode, encode,
};
use microfaas_lane::Status;
use microfaas_lane::message::{Encoder, META_ALIGN};
use microfaas_lane::state::Start;
use microfaas_lane::worker::{Bases, Completion, Submission, WorkerLane};
use microfaas_sys::mapping::Mapping;
use microfaas_sys::{affinity, eventfd, futex, socket};

use crate::attack::{Malice, Point, Prey};

fn main() -> io::Result<()> {
    // SAFETY: the node has left this descriptor for us, and nobody else here knows of it.
    let control = unsafe { OwnedFd::from_raw_fd(CONTROL_FD) };
    let behaviour = std::env::var(microfaas_e2e::BEHAVIOUR).unwrap_or_default();
    let ledger = std::env::var_os(microfaas_e2e::LEDGER)
        .map(|path| File::options().append(true).open(path))
        .transpose()?;
    let mut worker = Worker {
        control,
        counters: None,
        lane: None,
        is_pinned: false,
        functions: Vec::new(),
        calls: 0,
        malice: Malice::default(),
        ledger,
    };
    worker.set_up(&behaviour)?;
    worker.serve()
}

struct Worker {
    control: OwnedFd,
    /// What an honest worker counts in.
    counters: Option<File>,
    lane: Option<Lane>,
    is_pinned: bool,
    functions: Vec<FunctionSpec>,
    calls: u32,
    malice: Malice,
    /// What was run, for a test that counts.
    ledger: Option<File>,
}

struct Lane {
    end: WorkerLane,
    event: OwnedFd,
    prey: Prey,
    _mappings: [Mapping; 3],
}

impl Worker {
    fn set_up(&mut self, behaviour: &str) -> io::Result<()> {
        loop {
            let mut buffer = vec![0; PACKET_BYTES_MAX];
            let packet = socket::recv(self.control.as_fd(), &mut buffer, PACKET_FDS_MAX, None)?;
            if packet.len == 0 {
                std::process::exit(0);
            }
            let message = decode(&buffer[..packet.len]).map_err(io::Error::other)?;
            let answer = match (message, behaviour) {
                (ToWorker::Start(_), "die") => std::process::exit(7),
                (ToWorker::Start(_), "fatal") => ToNode::Fatal { reason: "no\nluck".into() },
                (ToWorker::Start(_), "babble") => {
                    socket::send(self.control.as_fd(), b"{\"Started\":", &[])?;
                    continue;
                }
                (ToWorker::Start(_), "skip") => ToNode::Ready { sandbox: SandboxReport::default() },
                (ToWorker::Start(start), _) => {
                    self.counters = packet.fds.into_iter().next().map(File::from);
                    if let Some(cpu) = start.cpu {
                        self.is_pinned = true;
                        affinity::pin_to(cpu)?;
                    }
                    ToNode::Started
                }
                (ToWorker::AddLane(spec), _) => self.add_lane(&spec, packet.fds)?,
                (ToWorker::Seal, _) => ToNode::Sealed,
                (ToWorker::RemoveLane { lane }, _) => ToNode::LaneRemoved { lane },
                (ToWorker::Bans { .. }, _) => ToNode::BansKept,
                (ToWorker::Ping, _) => ToNode::Pong,
                (ToWorker::Retire, _) => ToNode::Retiring,
                (ToWorker::Unload(unload), _) => ToNode::Unloading { module: unload.module },
                (ToWorker::Load(_), "mute-trial") if !self.is_pinned => {
                    // SAFETY: nothing in this process uses the number from now on.
                    unsafe { libc::close(CONTROL_FD) };
                    loop {
                        std::thread::sleep(Duration::from_secs(1));
                    }
                }
                (ToWorker::Load(load), "refuse") => {
                    ToNode::LoadFailed { module: load.module, reason: "no such luck".into() }
                }
                (ToWorker::Load(load), _) => {
                    self.functions.extend(load.functions);
                    ToNode::Loaded { module: load.module, writable_bytes: 0, init_bytes: 0, bytes: 0 }
                }
                (ToWorker::Shelve { .. }, _) => ToNode::Shelved,
                (ToWorker::Serve, _) => {
                    self.say(&ToNode::Ready { sandbox: SandboxReport::default() })?;
                    return Ok(());
                }
            };
            self.say(&answer)?;
        }
    }

    fn say(&self, message: &ToNode) -> io::Result<()> {
        let packet = encode(message).map_err(io::Error::other)?;
        socket::send(self.control.as_fd(), &packet, &[])
    }

    fn add_lane(&mut self, spec: &LaneSpec, fds: Vec<OwnedFd>) -> io::Result<ToNode> {
        let [event, down_fd, bulk_fd, up_fd] = <[OwnedFd; 4]>::try_from(fds)
            .map_err(|_| io::Error::other("a lane comes with four descriptors"))?;
        let geometry = spec.geometry;
        let down = Mapping::shared_ro(down_fd.as_fd(), geometry.down_bytes())?;
        let bulk = Mapping::shared_ro(bulk_fd.as_fd(), geometry.bulk_bytes())?;
        let up = Mapping::shared_rw(up_fd.as_fd(), geometry.up_bytes(), 0)?;
        let bases = Bases { down: down.base(), bulk: bulk.base(), up: up.base() };
        // SAFETY: three mappings of the geometry's sizes, kept beside the end; the only end in this process.
        let end = unsafe { WorkerLane::new(bases, geometry) };
        let (down_base, up_base) = (down.base(), up.base());
        let prey = Prey { down: down_fd, bulk: bulk_fd, up: up_fd, down_base, up_base, geometry };
        self.lane = Some(Lane { end, event, prey, _mappings: [down, bulk, up] });
        Ok(ToNode::LaneAdded { lane: spec.lane })
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut lane = self.lane.take().ok_or_else(|| io::Error::other("no lane"))?;
        loop {
            let cpu = affinity::current().map_or(0, |cpu| cpu + 1);
            lane.end.worker_words().worker_cpu.0.store(cpu, microfaas_lane::sync::Ordering::Relaxed);
            if lane.end.is_ready() {
                self.malice.at(Point::Take);
            }
            let Some(call) = lane.end.pop().map_err(|fault| io::Error::other(format!("{fault:?}")))? else {
                sleep(&lane)?;
                continue;
            };
            self.calls += 1;
            let completion = self.answer(&lane, &call);
            if self.malice.swallows && !self.is_attack(&call) {
                continue;
            }
            if !self.is_attack(&call) {
                self.malice.at(Point::Publish);
            }
            lane.end.complete(&completion);
            if !self.is_attack(&call) {
                self.malice.at(Point::Wake);
            }
            if self.malice.silent && !self.is_attack(&call) {
                continue;
            }
            let sleeps = lane.end.host_sleeps();
            if sleeps.futex {
                futex::wake_all(lane.end.worker_words().host_bell.word().as_std())?;
            }
            if sleeps.event {
                let _ = eventfd::signal(lane.event.as_fd());
            }
            if !self.is_attack(&call) {
                self.malice.at(Point::Served);
            }
        }
    }

    /// Leaves the request in the ledger, where there is one: in one write, which is there whatever happens next.
    fn enter(&mut self, body: &[u8]) {
        if let Some(ledger) = &mut self.ledger {
            ledger.write_all(body).expect("the ledger takes it");
        }
    }

    /// Says again and again, as fast as it is heard, what an honest worker may say unasked.
    fn flood(&self) {
        let packet = encode(&ToNode::Fault { function: u32::MAX, is_unsafe: false });
        let (Ok(packet), Ok(control)) = (packet, self.control.try_clone()) else { return };
        std::thread::spawn(move || {
            loop {
                if socket::send(control.as_fd(), &packet, &[]).is_err() {
                    std::thread::yield_now();
                }
            }
        });
    }

    /// Writes the greatest numbers wherever functions are counted.
    fn spoil(&self) {
        if let Some(counters) = &self.counters {
            let _ = counters.write_all_at(&[0xff; 64 * 4096], 0);
        }
    }

    fn is_attack(&self, call: &Submission) -> bool {
        self.functions.iter().any(|spec| spec.function == call.function && spec.name == "attack")
    }

    fn answer(&mut self, lane: &Lane, call: &Submission) -> Completion {
        let mut completion = Completion {
            slot: call.slot,
            generation: call.generation,
            status: Status::Ok,
            body_len: 0,
            meta_len: 0,
            overflow: false,
            is_unsafe: false,
            cpu_ns: 1000,
        };
        self.malice.at(Point::Start);
        if lane.end.start(call) == Start::TakenBack {
            completion.status = Status::Cancelled;
            return completion;
        }
        self.malice.at(Point::Run);
        // SAFETY: just popped from this lane, and completed only after this function.
        let (body, meta) = unsafe { lane.end.request(call) };
        let text = std::str::from_utf8(body).unwrap_or_default();
        let name = self.functions.iter().find(|spec| spec.function == call.function);
        match name.map(|spec| spec.name.as_str()) {
            Some("echo") if self.malice.dies_at(Point::Half) => {
                respond(lane, &mut completion, &body[..body.len() / 2], &[]);
                self.malice.at(Point::Half);
            }
            Some("echo") => {
                self.enter(body);
                respond(lane, &mut completion, body, meta);
            }
            Some("attack") if text == "talk" => {
                for _ in 0..20 {
                    // The kernel may see to it that none are sent.
                    let _ = socket::send(self.control.as_fd(), b"junk", &[lane.event.as_fd(); 4])
                        .or_else(|_| socket::send(self.control.as_fd(), b"junk", &[]));
                }
                respond(lane, &mut completion, b"begun", &[]);
            }
            // Of the one module, which it has loaded and nobody has asked it to let go of, and of one that there is not.
            Some("attack") if ["want", "evict", "unload"].contains(&text) => {
                respond(lane, &mut completion, b"begun", &[]);
                let said = match text {
                    "want" => ToNode::Wanted { module: 0 },
                    "evict" => ToNode::Evicted { module: 99, stayed_bytes: u64::MAX },
                    _ => ToNode::Unloaded { module: 0, stayed_bytes: 0 },
                };
                let _ = self.say(&said);
            }
            Some("attack") if text == "flood" => {
                self.flood();
                respond(lane, &mut completion, b"begun", &[]);
            }
            Some("attack") if text == "spoil" => {
                self.spoil();
                respond(lane, &mut completion, b"spoilt", &[]);
            }
            Some("attack") => {
                let said = self.malice.begin(text, &lane.prey, &lane.event);
                respond(lane, &mut completion, said.as_bytes(), &[]);
            }
            Some("sleep") => {
                std::thread::sleep(Duration::from_millis(text.parse().unwrap_or(0)));
                respond(lane, &mut completion, body, &[]);
            }
            Some("gate") => {
                microfaas_e2e::gate::pass(Path::new(text));
                respond(lane, &mut completion, body, &[]);
            }
            Some("die") => std::process::exit(3),
            Some("hang") if u64::from(call.flags) & microfaas_abi::CALL_RETRIED != 0 => {
                respond(lane, &mut completion, body, meta);
            }
            Some("hang") => {
                self.enter(body);
                loop {
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
            Some("error") => {
                completion.status = Status::Error;
                respond(lane, &mut completion, b"bad input", meta);
            }
            Some("panic") => {
                completion.status = Status::Panic;
                respond(lane, &mut completion, b"at the disco\n\x1b[31m", &[]);
            }
            Some("lie") => completion.generation = completion.generation.wrapping_add(1),
            Some("bad-meta") => respond(lane, &mut completion, b"body", b"\x01\x00\x01\x00a\n"),
            Some("big") => respond(lane, &mut completion, &vec![b'x'; text.parse().unwrap_or(0)], meta),
            Some("count") => respond(lane, &mut completion, self.calls.to_string().as_bytes(), &[]),
            Some("cpu") => {
                completion.cpu_ns = u64::MAX >> 20;
                respond(lane, &mut completion, b"", &pairs());
            }
            _ => completion.status = Status::NotFound,
        }
        completion
    }
}

fn pairs() -> Vec<u8> {
    let mut block = vec![0; 64];
    let mut encoder = Encoder::new(&mut block);
    encoder.push(":status", "201").expect("a valid pair that fits");
    let len = encoder.finish();
    block.truncate(len);
    block
}

/// Writes a response where it belongs.
fn respond(lane: &Lane, completion: &mut Completion, body: &[u8], meta: &[u8]) {
    let mut message = body.to_vec();
    if !meta.is_empty() {
        message.resize(body.len().next_multiple_of(META_ALIGN), 0);
        message.extend(meta);
    }
    let (small, small_bytes) = lane.end.small_response(completion.slot);
    completion.overflow = message.len() > small_bytes;
    let (start, bytes) =
        if completion.overflow { lane.end.overflow_response(completion.slot) } else { (small, small_bytes) };
    if message.len() > bytes {
        completion.status = Status::TooLarge;
        completion.overflow = false;
        return;
    }
    completion.body_len = u32::try_from(body.len()).expect("shorter than the buffer");
    completion.meta_len = u32::try_from(meta.len()).expect("shorter than the buffer");
    // SAFETY: the buffer is this call's, long enough as just checked, and mapped writable.
    unsafe { start.as_ptr().copy_from_nonoverlapping(message.as_ptr(), message.len()) };
}

/// Spins a little, then sleeps on the bell.
fn sleep(lane: &Lane) -> io::Result<()> {
    for _ in 0..200 {
        if lane.end.is_ready() {
            return Ok(());
        }
        std::hint::spin_loop();
    }
    let epoch = &lane.end.worker_words().worker_epoch;
    epoch.doze();
    let bell = &lane.end.host_words().worker_bell;
    let seen = bell.seen();
    if !lane.end.is_ready() {
        futex::wait(bell.word().as_std(), seen, Duration::from_millis(100))?;
    }
    epoch.wake();
    Ok(())
}
