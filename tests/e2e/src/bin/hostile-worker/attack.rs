//! What the worker does to its host from the inside: the cases of the catalogue that need a process of their own.
//!
//! A call of the function `attack` says which; it is answered first, honestly, and the calls after it find the worker changed.
#![expect(
    unsafe_code,
    reason = "writes where an honest worker would not, and makes calls that no crate wraps"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use microfaas_lane::layout::{Geometry, RING, WORKER_WORDS};
use microfaas_lane::words::{HostWords, WorkerWords};
use microfaas_sys::{eventfd, futex};
use nix::libc;

/// Where the worker kills itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    Take,
    Start,
    Run,
    Half,
    Publish,
    Wake,
    Served,
}

const POINTS: [(&str, Point); 7] = [
    ("take", Point::Take),
    ("start", Point::Start),
    ("run", Point::Run),
    ("half", Point::Half),
    ("publish", Point::Publish),
    ("wake", Point::Wake),
    ("served", Point::Served),
];

/// The lane as the attacks see it: descriptors and addresses, all of which stay for the life of the process.
#[derive(Debug)]
pub(crate) struct Prey {
    pub(crate) down: OwnedFd,
    pub(crate) bulk: OwnedFd,
    pub(crate) up: OwnedFd,
    pub(crate) down_base: NonNull<u8>,
    pub(crate) up_base: NonNull<u8>,
    pub(crate) geometry: Geometry,
}

/// What is different from an honest worker.
#[derive(Debug, Default)]
pub(crate) struct Malice {
    /// Completes and rings nobody.
    pub(crate) silent: bool,
    /// Starts calls and never completes them.
    pub(crate) swallows: bool,
    kill: Option<Point>,
}

impl Malice {
    /// Begins an attack; the answer is what the call gets back.
    pub(crate) fn begin(&mut self, text: &str, prey: &Prey, event: &OwnedFd) -> String {
        let (name, argument) = text.split_once(' ').unwrap_or((text, ""));
        match name {
            "silent" => self.silent = true,
            "swallow" => self.swallows = true,
            "kill" => self.kill = POINTS.iter().find(|(n, _)| *n == argument).map(|(_, point)| *point),
            "scribble" => scribble(prey, argument, false),
            "scribble-all" => scribble(prey, argument, true),
            "leave-child" => leave_child(prey, argument),
            "storm" => storm(prey, event),
            "steal" => steal(prey),
            "requeue" => requeue(prey),
            "fill" => return fill(event),
            "punch" => return punch(prey),
            "borders" => return borders(prey),
            _ => return "no such attack".to_owned(),
        }
        "begun".to_owned()
    }

    /// Dies here, where it was told to.
    pub(crate) fn at(&self, point: Point) {
        if self.kill == Some(point) {
            // Raised by this thread for itself, it does not come back.
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        }
    }

    pub(crate) fn dies_at(&self, point: Point) -> bool {
        self.kill == Some(point)
    }
}

/// Numbers that look random; the same for the same seed.
struct Random(u64);

impl Random {
    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap_or(0) % end
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The words that a scribbler may write, from the start of the up region.
#[derive(Clone, Copy)]
struct Target {
    address: usize,
    geometry: Geometry,
}

impl Target {
    fn of(prey: &Prey) -> Self {
        Self { address: prey.up_base.as_ptr().expose_provenance(), geometry: prey.geometry }
    }

    fn state_offset(self, random: &mut Random) -> usize {
        let slot = random.below(self.geometry.slots() as usize);
        self.geometry.state_offset(u32::try_from(slot).unwrap_or(0))
    }

    /// Writes random words for `time`. Everywhere that small calls use, responses included, or only where the protocol's own words are.
    fn scribble(self, seed: u64, time: Duration, all: bool) {
        let mut random = Random(seed);
        let words = self.geometry.resident_up_bytes() / 8;
        let start = Instant::now();
        while start.elapsed() < time {
            let pick = random.next();
            let offset = match pick % 8 {
                _ if all => random.below(words) * 8,
                0 => WORKER_WORDS + random.below(8) * 8,
                1..4 => self.state_offset(&mut random),
                _ => RING + random.below(self.geometry.ring_entries() as usize * 8) * 8,
            };
            let value = match (all, pick >> 8 & 7) {
                (true, 0) => 0,
                (true, 1) => u64::MAX,
                (true, 2) => random.next() & 0xff,
                (true, 3) => (random.next() & 0xff) << 32,
                _ => random.next(),
            };
            let word = std::ptr::with_exposed_provenance_mut::<u64>(self.address + offset);
            // SAFETY: an aligned word of the region's resident part, which stays mapped; shared memory is accessed by atomics.
            unsafe { AtomicU64::from_ptr(word) }.store(value, Ordering::Relaxed);
            // Some calls are to come through.
            for _ in 0..random.next() % 4096 {
                std::hint::spin_loop();
            }
        }
    }
}

/// While calls go on: `SEED MILLISECONDS`.
fn scribble(prey: &Prey, argument: &str, all: bool) {
    let (target, (seed, time)) = (Target::of(prey), numbers(argument));
    std::thread::spawn(move || target.scribble(seed, Duration::from_millis(time), all));
}

/// A child outlives the worker, keeps its mappings and writes on after the lane was replaced.
fn leave_child(prey: &Prey, argument: &str) {
    let (target, (seed, time)) = (Target::of(prey), numbers(argument));
    // SAFETY: this process has one thread now; the child only writes to memory, and ends.
    if unsafe { libc::fork() } == 0 {
        target.scribble(seed, Duration::from_millis(time), true);
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) };
    }
}

fn numbers(argument: &str) -> (u64, u64) {
    let mut numbers = argument.split(' ').map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn worker_words(prey: &Prey) -> &'static WorkerWords {
    // SAFETY: the words lie in the region, which stays mapped for the life of the process.
    let words = unsafe { prey.up_base.byte_add(WORKER_WORDS) };
    // SAFETY: atomics only, for which any content is valid.
    unsafe { words.cast().as_ref() }
}

fn host_words(prey: &Prey) -> &'static HostWords {
    // SAFETY: the words lie in the region, which stays mapped for the life of the process.
    let words = unsafe { prey.down_base.byte_add(microfaas_lane::layout::HOST_WORDS) };
    // SAFETY: atomics only, for which any content is valid.
    unsafe { words.cast().as_ref() }
}

/// Rings all bells for half a second.
fn storm(prey: &Prey, event: &OwnedFd) {
    let bell = &worker_words(prey).host_bell;
    let Ok(event) = event.try_clone() else { return };
    std::thread::spawn(move || {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(500) {
            bell.ring();
            let _ = futex::wake_all(bell.word().as_std());
            let _ = eventfd::signal(event.as_fd());
        }
    });
}

/// Sixteen threads wait where the host waits, and where the worker does.
fn steal(prey: &Prey) {
    let (host, worker) = (&worker_words(prey).host_bell, &host_words(prey).worker_bell);
    for i in 0..16 {
        let bell = if i % 2 == 0 { host } else { worker };
        std::thread::spawn(move || {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(500) {
                let _ = futex::wait(bell.word().as_std(), bell.seen(), Duration::from_millis(50));
            }
        });
    }
}

/// Moves whoever sleeps on the host's bell to another word, again and again.
fn requeue(prey: &Prey) {
    static ELSEWHERE: AtomicU32 = AtomicU32::new(0);
    let bell = &worker_words(prey).host_bell;
    std::thread::spawn(move || {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(500) {
            let (from, most) = (bell.word().as_std().as_ptr(), 1000usize);
            // SAFETY: both words stay valid; the kernel moves waiters from one to the other.
            unsafe {
                libc::syscall(libc::SYS_futex, from, libc::FUTEX_REQUEUE, 0, most, ELSEWHERE.as_ptr(), 0)
            };
            std::thread::sleep(Duration::from_micros(100));
        }
    });
}

/// The event descriptor's counter at its most.
fn fill(event: &OwnedFd) -> String {
    let most = (u64::MAX - 1).to_ne_bytes();
    // SAFETY: eight bytes are read from a live array.
    let written = unsafe { libc::write(event.as_raw_fd(), most.as_ptr().cast(), most.len()) };
    if written == 8 { "begun".to_owned() } else { io::Error::last_os_error().to_string() }
}

/// Zeroes everything that both sides share.
fn punch(prey: &Prey) -> String {
    let bytes = i64::try_from(prey.geometry.up_bytes()).unwrap_or(i64::MAX);
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: takes numbers.
    let done = unsafe { libc::fallocate(prey.up.as_raw_fd(), mode, 0, bytes) };
    if done == 0 { "begun".to_owned() } else { io::Error::last_os_error().to_string() }
}

/// Tries what the seals and the read-only descriptors forbid; names what worked.
fn borders(prey: &Prey) -> String {
    let mut open = Vec::new();
    for (name, fd) in [("down", &prey.down), ("bulk", &prey.bulk), ("up", &prey.up)] {
        for (what, bytes) in [("shrunk", 0), ("grown", 1 << 40)] {
            // SAFETY: takes numbers.
            if unsafe { libc::ftruncate(fd.as_raw_fd(), bytes) } == 0 {
                open.push(format!("{name} {what}"));
            }
        }
        // SAFETY: takes numbers.
        if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_WRITE) } == 0 {
            open.push(format!("{name} sealed"));
        }
    }
    for (name, fd) in [("down", &prey.down), ("bulk", &prey.bulk)] {
        let raw = fd.as_raw_fd();
        let (read, write) = (libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping replaces nothing.
        if unsafe { libc::mmap(null_mut(), 4096, write, libc::MAP_SHARED, raw, 0) } != libc::MAP_FAILED {
            open.push(format!("{name} mapped"));
        }
        // SAFETY: as above.
        let mapping = unsafe { libc::mmap(null_mut(), 4096, read, libc::MAP_SHARED, raw, 0) };
        // SAFETY: the mapping was just made and is nobody's.
        if unsafe { libc::mprotect(mapping, 4096, write) } == 0 {
            open.push(format!("{name} made writable"));
        }
        // SAFETY: as above.
        if unsafe { libc::madvise(mapping, 4096, libc::MADV_REMOVE) } == 0 {
            open.push(format!("{name} removed"));
        }
        // SAFETY: one byte is read from a constant.
        if unsafe { libc::pwrite(raw, c"x".as_ptr().cast(), 1, 4096) } == 1 {
            open.push(format!("{name} written"));
        }
        // SAFETY: takes numbers.
        if unsafe { libc::fallocate(raw, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 0, 4096) }
            == 0
        {
            open.push(format!("{name} punched"));
        }
    }
    // A descriptor that writes, by the name of the one that does not. Where the sandbox is off, the seal alone is in the way.
    if let Ok(file) =
        std::fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", prey.down.as_raw_fd()))
        && io::Write::write(&mut &file, b"x").is_ok()
    {
        open.push("down reopened".to_owned());
    }
    if open.is_empty() { "all shut".to_owned() } else { open.join(", ") }
}
