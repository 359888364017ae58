//! What is inside a worker, in the calling thread: its scheduler, a lane with both ends, a module. For what cannot be seen from outside a
//! worker: how often calls were suspended, and what the way into a call and out of it costs. All of it is the worker's own code but for the loop.
#![expect(unsafe_code, reason = "both ends of a lane in one process")]

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::ptr::NonNull;
use std::time::Duration;

use microfaas_control::{FunctionSpec, LaneSpec, Limits, Load, Start};
use microfaas_lane::Status;
use microfaas_lane::host::{HostLane, Memory, Reader, Request, Ticket};
use microfaas_lane::layout::{Geometry, Region};
use microfaas_lane::message::message_len;
use microfaas_lane::slots::Record;
use microfaas_lane::state;
use microfaas_lane::worker::Submission;
use microfaas_metrics::Recorder;
use microfaas_preempt::contain::Containment;
use microfaas_preempt::{Entry, contain, timer};
use microfaas_sys::clock::CycleClock;
use microfaas_sys::mapping::Mapping;
use microfaas_sys::{eventfd, memfd};
use microfaas_worker::control::{Lane, add_lane};
use microfaas_worker::descriptor::Received;
use microfaas_worker::function::Function;
use microfaas_worker::host_calls::{Response, State};
use microfaas_worker::instance::Instance;
use microfaas_worker::kept::repair;
use microfaas_worker::lanes::Lanes;
use microfaas_worker::loader::load;
use microfaas_worker::schedule::{After, Scheduler};

const GEOMETRY: Geometry =
    Geometry { small_slots: 256, large_slots: 0, small_bytes: 4096, large_bytes: 4096, response_bytes: 4096 };

/// See the module. One of a process, and in one thread: the signal handlers' state is static.
#[derive(Debug)]
pub struct Inside {
    scheduler: Scheduler,
    lanes: Lanes,
    functions: Vec<Function>,
    instances: Vec<Instance>,
    host: HostLane<Regions>,
    reader: Reader,
    _handlers: Containment,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Which call.
    pub ticket: Ticket,
    /// The verdict.
    pub status: Status,
    /// The response's body, or the text about the failure.
    pub body: Vec<u8>,
    /// Its time on the core, in nanoseconds.
    pub cpu_ns: u64,
}

impl Inside {
    /// Takes SIGALRM, the signals of faults and a timer for this thread.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn new(suspended_max: u32) -> io::Result<Self> {
        let settings = Start {
            cycle_rate: 0,
            cpu: None,
            spin_ns_max: 0,
            stack_bytes: 1 << 20,
            arena_bytes: 128 << 20,
            init_bytes: 64 << 20,
            suspended_max,
            modules_bytes_max: 0,
            modules_max: 0,
            node_pid: std::process::id(),
            sandbox: microfaas_control::sandbox::SandboxPolicy::default(),
        };
        let clock = CycleClock::calibrate(Duration::from_millis(20));
        let (_, counted) = microfaas_metrics::Region::create()?;
        let scheduler = Scheduler::new(&settings, clock, Recorder::map(counted.as_fd())?)?;
        let handlers = contain::install(Some(repair))?;
        timer::install(&clock)?;
        let (regions, fds) = Regions::create()?;
        let (host, reader) = HostLane::new(regions);
        let mut lanes = Lanes::default();
        *lanes.vacant(0)? = Some(add_lane(
            &LaneSpec { lane: 0, geometry: GEOMETRY, copies: false },
            fds.into_iter().map(Received::new).collect(),
        )?);
        let (functions, instances) = (Vec::new(), Vec::new());
        Ok(Self { scheduler, lanes, functions, instances, host, reader, _handlers: handlers })
    }

    /// Loads a module with some of its functions; returns the number of the first of them, the others follow. A name may be there more than once, with
    /// other limits.
    ///
    /// # Errors
    /// Why the module was refused.
    pub fn load(&mut self, module: &Path, functions: &[(&str, Limits)]) -> io::Result<u32> {
        let first = u32::try_from(self.functions.len()).unwrap_or(u32::MAX);
        let instance = u32::try_from(self.instances.len()).unwrap_or(u32::MAX);
        let specs = (first..).zip(functions).map(|(function, &(name, limits))| FunctionSpec {
            function,
            name: name.to_owned(),
            aliases: Vec::new(),
            limits,
        });
        let request = Load {
            module: instance,
            label: module.display().to_string(),
            image_bytes: 0,
            stays: true,
            functions: specs.collect(),
        };
        let fd = Received::new(File::open(module)?.into());
        let (context, state) = self.scheduler.lend();
        let loaded = load(fd, &request, instance, context, state, 64 << 20).map_err(io::Error::other)?;
        self.instances.push(loaded.instance);
        for ((_, entry), spec) in loaded.entries.into_iter().zip(&request.functions) {
            self.functions.push(Function::new(entry, instance, &spec.limits, self.scheduler.clock()));
        }
        Ok(first)
    }

    /// Adds an entry of this program as a function of the module that `like` is of.
    pub fn add_entry(&mut self, entry: Entry, like: u32, limits: Limits) -> u32 {
        let instance = self.functions[like as usize].instance;
        self.functions.push(Function::new(entry, instance, &limits, self.scheduler.clock()));
        u32::try_from(self.functions.len() - 1).unwrap_or(u32::MAX)
    }

    /// The clock that the scheduler measures with.
    #[must_use]
    pub fn clock(&self) -> CycleClock {
        *self.scheduler.clock()
    }

    /// What functions have been charged so far, in nanoseconds: [`Scheduler::spent`].
    #[must_use]
    pub fn spent_ns(&self) -> u64 {
        self.scheduler.clock().to_ns(self.scheduler.spent())
    }

    /// Submits a call, as a host does.
    ///
    /// # Panics
    /// Where no slot is free, or the body is longer than one.
    pub fn submit(&self, function: u32, body: &[u8]) -> Ticket {
        let mut reserved = self.host.reserve(body.len()).expect("a free slot that is large enough");
        self.host.buffer(&mut reserved)[..body.len()].copy_from_slice(body);
        let body_len = u32::try_from(body.len()).expect("it fits a slot");
        self.host.submit(
            reserved,
            &Request {
                function,
                body_len,
                meta_len: 0,
                deadline_ns: u64::MAX,
                flags: 0,
                submitted_cycles: 0,
            },
        )
    }

    /// Claims the next submission, as the worker does.
    ///
    /// # Panics
    /// Never: this host submits what it should.
    #[inline]
    pub fn claim(&mut self) -> Option<Submission> {
        let submission = self.lanes[0].end.pop().expect("an honest host")?;
        let start = self.lanes[0].end.start(&submission);
        assert_eq!(start, state::Start::Yours, "nobody takes calls back here");
        self.lanes[0].announce();
        Some(submission)
    }

    /// Starts a claimed call: [`Scheduler::start`].
    ///
    /// # Panics
    /// Where it broke memory safety.
    #[inline]
    pub fn start(&mut self, submission: &Submission) {
        let function = &mut self.functions[submission.function as usize];
        let instance = &mut self.instances[function.instance as usize];
        let after = self.scheduler.start(&mut self.lanes, 0, submission, function, instance);
        assert_eq!(after, After::Serve);
    }

    /// Gives the call that has waited longest its next slice. False where none is suspended.
    ///
    /// # Panics
    /// Where it broke memory safety.
    pub fn resume(&mut self) -> bool {
        if self.scheduler.suspended() == 0 {
            return false;
        }
        let (functions, instances) = (&mut self.functions, &mut self.instances);
        let any = |_, _| true;
        let after = self.scheduler.resume_next(&mut self.lanes, any, |number| {
            let function = functions.get_mut(number as usize)?;
            let instance = instances.get_mut(function.instance as usize)?;
            Some((function, instance))
        });
        assert_eq!(after, After::Serve);
        true
    }

    /// Makes host calls work on this response, for calls that run without the scheduler and allocate nothing.
    ///
    /// # Panics
    /// Where every context is in use by suspended calls.
    pub fn choose(&mut self, response: &mut Response) {
        let (_, state) = self.scheduler.lend();
        // SAFETY: no call runs. The arena is not used; the response is the caller's, who keeps it until the scheduler chooses another for its next call.
        unsafe { State::choose(state, std::ptr::null_mut(), response) };
    }

    /// The lane's worker end and a function's row, for doing without the scheduler what it does.
    pub fn parts(&mut self, function: u32) -> (&mut Lane, Function) {
        (&mut self.lanes[0], self.functions[function as usize])
    }

    /// The next completion, if there is one.
    ///
    /// # Panics
    /// Where the completion cannot be one.
    pub fn take(&mut self) -> Option<Ended> {
        let completed = self.host.poll(&mut self.reader).expect("an honest worker")?;
        let ticket = completed.ticket;
        let outcome = self.host.outcome(ticket).expect("it was just polled");
        let len = message_len(outcome.body_len as usize, outcome.meta_len as usize).expect("it was checked");
        let mut body = Vec::with_capacity(len);
        self.host.copy_response(ticket, &outcome, 0, &mut body.spare_capacity_mut()[..len]);
        // SAFETY: that many bytes were just written.
        unsafe { body.set_len(len) };
        body.truncate(outcome.body_len as usize);
        self.host.release(ticket);
        Some(Ended { ticket, status: outcome.status, body, cpu_ns: outcome.cpu_ns })
    }
}

/// The host's side of the lane's memory.
#[derive(Debug)]
struct Regions {
    down: Mapping,
    bulk: Mapping,
    up: Mapping,
    records: Box<[Record]>,
}

impl Regions {
    fn create() -> io::Result<(Self, Vec<std::os::fd::OwnedFd>)> {
        let region = |region: Region, bytes: usize| -> io::Result<_> {
            let fd = memfd::create(c"microfaas-inside", bytes as u64)?;
            let mapping = Mapping::shared_rw(fd.as_fd(), bytes, bytes)?;
            // SAFETY: at least a page, aligned to one, and known to nobody else yet.
            unsafe { mapping.base().cast().write(GEOMETRY.header(region)) };
            Ok((fd, mapping))
        };
        let (down_fd, down) = region(Region::Down, GEOMETRY.down_bytes())?;
        let (bulk_fd, bulk) = region(Region::Bulk, GEOMETRY.bulk_bytes())?;
        let (up_fd, up) = region(Region::Up, GEOMETRY.up_bytes())?;
        let records = (0..GEOMETRY.slots()).map(|_| Record::default()).collect();
        let fds = vec![eventfd::create()?, down_fd, bulk_fd, up_fd];
        Ok((Self { down, bulk, up, records }, fds))
    }
}

// SAFETY: the mappings are as long as the geometry says, page-aligned, readable and writable, zero but for the header, and live as long as the
// value; no slice of them is made here, nobody else writes them, the geometry is a constant, and the box of records never moves.
unsafe impl Memory for Regions {
    fn geometry(&self) -> &Geometry {
        &GEOMETRY
    }

    fn base(&self, region: Region) -> NonNull<u8> {
        match region {
            Region::Down => self.down.base(),
            Region::Bulk => self.bulk.base(),
            Region::Up => self.up.base(),
        }
    }

    unsafe fn records(&self) -> &[Record] {
        &self.records
    }
}
