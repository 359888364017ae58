//! What a call costs beside time: no allocation, no system call, and nothing at all while no call comes.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use microfaas_e2e::{COUNT_FILE, Watchdog, probe_node, program};
use microfaas_node::{FunctionConfig, Limits, Node, Request, Status};
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

const LIMIT: Duration = Duration::from_secs(120);
const CALLS: u64 = 20_000;
/// CPU time of a call that has as much as it likes.
const BUDGET_NS: u64 = 600_000_000_000;
/// What the test of allocations calls.
const CALLED: [&str; 7] = ["echo", "fail", "panic", "hoard", "alloc", "echo_vec", "counter"];

fn echo_often(node: &Node, calls: u64) {
    for i in 0..calls {
        let answer = node.call("echo", Request::new(&i.to_le_bytes()));
        assert_eq!(
            (answer.status, &answer.body[..]),
            (Status::Ok, &i.to_le_bytes()[..]),
            "{}",
            answer.detail
        );
    }
}

/// Sixty-four calls at once, of these functions in turn. The host does not sleep, which would make the worker wake it.
fn burst(node: &Node, functions: &[&str]) {
    let submit = |function| node.submit(function, Request::new(b"64")).expect("a slot");
    let calls: Vec<_> = functions.iter().cycle().take(64).map(submit).collect();
    for mut call in calls {
        let answer = loop {
            if let Some(answer) = call.try_take() {
                break answer;
            }
            std::hint::spin_loop();
        };
        assert_eq!(answer.status, Status::Ok);
    }
}

#[test]
fn a_worker_allocates_nothing_for_a_call() {
    let _watchdog = Watchdog::new(LIMIT);
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("count");
    fs::write(&path, [0; 4096]).unwrap();
    // Nor is it asked whether it lives, or is a call suspended, whose state is put aside, where the machine has something else to do for a while.
    let limits = Limits { quantum_ns: BUDGET_NS, budget_ns: BUDGET_NS, ..Limits::default() };
    let builder = CALLED.iter().fold(probe_node().heartbeat(LIMIT), |builder, name| {
        builder.function(*name, FunctionConfig::default().limits(limits))
    });
    let builder = builder.worker_binary(program("counting-worker"));
    let node = builder.worker_env(COUNT_FILE, &path).spares(0).start().unwrap();
    let count = || u64::from_le_bytes(fs::read(&path).unwrap()[..8].try_into().unwrap());
    echo_often(&node, 100);
    let before = count();
    assert!(before > 100, "the counter counts what set-up allocates, not {before}");
    echo_often(&node, CALLS);
    for name in ["fail", "panic", "hoard", "alloc"] {
        node.call(name, Request::new(b"4096"));
    }
    // Also when it is behind, and has to choose.
    for _ in 0..CALLS / 64 {
        burst(&node, &["echo", "echo_vec", "counter", "alloc"]);
    }
    assert_eq!(count() - before, 0, "allocations and frees in {CALLS} calls");
}

/// Counts a process's system calls, as its tracer, until `stop`. On a thread of its own, since a tracer is a thread.
fn count_system_calls(pid: Pid, started: &AtomicBool, stop: &AtomicBool, stops: &AtomicU64) {
    ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACESYSGOOD).expect("tracing the own worker");
    ptrace::interrupt(pid).expect("interrupting it");
    let mut stopping = false;
    loop {
        match waitpid(pid, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
            // Whatever it stops for first after the interrupt will do.
            Ok(WaitStatus::PtraceSyscall(_) | WaitStatus::PtraceEvent(..)) if stopping => {
                return ptrace::detach(pid, None).expect("letting go");
            }
            Ok(WaitStatus::PtraceSyscall(_)) => {
                stops.fetch_add(1, Ordering::Relaxed);
                ptrace::syscall(pid, None).expect("continuing");
            }
            Ok(WaitStatus::PtraceEvent(..)) => {
                ptrace::syscall(pid, None).expect("continuing");
                started.store(true, Ordering::Release);
            }
            Ok(WaitStatus::Stopped(_, signal)) => {
                let signal = (signal != Signal::SIGTRAP).then_some(signal);
                ptrace::syscall(pid, signal).expect("continuing");
            }
            Ok(WaitStatus::StillAlive) => {
                if stop.load(Ordering::Acquire) && !stopping {
                    stopping = true;
                    ptrace::interrupt(pid).expect("interrupting it");
                }
                std::thread::yield_now();
            }
            Ok(other) => panic!("the worker ended: {other:?}"),
            Err(Errno::EINTR) => {}
            Err(error) => panic!("waiting for the traced worker: {error}"),
        }
    }
}

#[test]
fn a_worker_under_load_makes_no_system_call_for_a_call() {
    const ROUNDS: usize = 10;
    const ROUND: u64 = CALLS / ROUNDS as u64;
    let _watchdog = Watchdog::new(LIMIT);
    // A spin longer than any pause of the host, so that neither side sleeps.
    // A traced worker stands still while its tracer waits for a core: that is not to be taken for hanging.
    let node = probe_node().spin(Duration::from_millis(100)).heartbeat(LIMIT).start().unwrap();
    echo_often(&node, 100);
    let pid = Pid::from_raw(i32::try_from(node.workers()[0].pid.unwrap()).unwrap());
    let (started, stop, stops) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    let mut made = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| count_system_calls(pid, &started, &stop, &stops));
        while !started.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(1));
        }
        // Of one function, which the worker takes as they come, and of more, of which it chooses.
        for functions in [["echo"].as_slice(), &["echo", "echo_vec", "counter"]] {
            for _ in 0..ROUNDS {
                let before = stops.load(Ordering::Relaxed);
                for _ in 0..ROUND / 64 {
                    burst(&node, functions);
                }
                // Each system call stops twice.
                made.push((stops.load(Ordering::Relaxed) - before) / 2);
            }
        }
        stop.store(true, Ordering::Release);
    });
    // What is left is the alarm, a few for each 4 ms, and sleeps where the worker has to share its core: they go by time, and not by calls.
    for made in made.chunks_exact(ROUNDS) {
        let least = made.iter().min().unwrap();
        assert!(least * 10 < ROUND, "{least} system calls in {ROUND} calls: {made:?}");
    }
}

#[test]
fn an_idle_worker_sleeps() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = probe_node().start().unwrap();
    echo_often(&node, 100);
    let pid = node.workers()[0].pid.unwrap();
    // Fields of /proc/PID/stat after the name: 0 the state, 11 and 12 the CPU ticks of 10 ms.
    let stat = || {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<String> = text.rsplit(") ").next().unwrap().split(' ').map(str::to_owned).collect();
        let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        (fields[0].clone(), ticks)
    };
    let begin = Instant::now();
    while stat().0 != "S" {
        assert!(begin.elapsed() < LIMIT, "the worker never sleeps");
        std::thread::sleep(Duration::from_millis(10));
    }
    let before = stat().1;
    std::thread::sleep(Duration::from_secs(2));
    let after = stat().1;
    assert!(after - before <= 1, "an idle worker used {} ticks in 200", after - before);
    // And it still hears the bell.
    echo_often(&node, 10);
}
