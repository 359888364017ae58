//! What a call may take of the core before others get it, and before it is ended: also where it overruns by less than the worker looks at once.
//!
//! What a worker has used is read from outside, off its own CPU clock: nothing here depends on how busy the machine is.
//!
//! Needs the worker's program: `cargo build -p microfaas-worker`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use microfaas_e2e::{Watchdog, attacks, probe_node};
use microfaas_node::{Call, Completion, FunctionConfig, Limits, Loading, Node, Policy, Request, Status};
use microfaas_sys::affinity;

const LIMIT: Duration = Duration::from_secs(240);
/// What a function that is trusted takes without being known to overrun: two calls; a few more where the machine took the core from them.
const UNKNOWN: usize = 10;

fn node(function: &str, limits: Limits) -> Node {
    let config = FunctionConfig::default().limits(limits).deadline(LIMIT);
    probe_node()
        .function(function, config)
        .deadline_default(LIMIT)
        .start()
        .expect("a node with the probe starts")
}

/// Rounds of `work_a` that take about so much CPU time.
fn rounds(node: &Node, time: Duration) -> u64 {
    const SOME: u64 = 1_000_000;
    let took = |_| node.call("work_b", SOME.to_string().as_bytes()).cpu_ns;
    let ns = (0..5).map(took).min().expect("five");
    let wanted = u64::try_from(time.as_nanos()).expect("a short time");
    (u128::from(wanted) * u128::from(SOME) / u128::from(ns.max(1))).try_into().expect("a number")
}

/// Nanoseconds of the system's clock.
fn now() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970").as_nanos()
}

/// When a call was done, as it says with its last word.
fn done(completion: &Completion) -> u128 {
    assert_eq!(completion.status, Status::Ok, "{}", completion.detail);
    let text = str::from_utf8(&completion.body).expect("a text");
    text.split(' ').next_back().and_then(|ns| ns.parse().ok()).expect("a number")
}

/// It would end by itself before a trusted one is looked at.
#[test]
fn the_first_call_of_a_new_function_is_held_to_its_quantum() {
    let _watchdog = Watchdog::new(LIMIT);
    let limits = Limits { quantum_ns: 100_000, policy: Policy::Kill, ..Limits::default() };
    for function in ["work_a", "work_c"] {
        let node = node(function, limits);
        let body = rounds(&node, Duration::from_millis(3)).to_string();
        let first = node.call(function, Request::new(body.as_bytes()));
        assert_eq!(first.status, Status::Timeout, "its first call took 30 quanta: {}", first.detail);
        // Nor is it forgotten when a call is ended, and everything reset.
        let second = node.call(function, Request::new(body.as_bytes()));
        assert_eq!(second.status, Status::Timeout, "{}", second.detail);
    }
}

#[test]
fn a_function_whose_module_is_loaded_anew_is_new() {
    let _watchdog = Watchdog::new(LIMIT);
    let limits = Limits { quantum_ns: 100_000, policy: Policy::Kill, ..Limits::default() };
    let config = FunctionConfig::default().limits(limits).deadline(LIMIT);
    let builder = probe_node().module(bulky()).function("work_a", config).deadline_default(LIMIT);
    let node = builder.load_default(Loading::FirstCall).modules_max(1).start().expect("a node starts");
    let body = rounds(&node, Duration::from_millis(3)).to_string();
    let call = |body: &str| node.call("work_a", Request::new(body.as_bytes()));
    // It is trusted afterwards.
    for _ in 0..1000 {
        let status = call("10").status;
        assert!([Status::Ok, Status::Timeout].contains(&status), "{status:?}");
    }
    assert_eq!(node.call("bulky_work", b"1".as_slice()).status, Status::Ok);
    let first = call(&body);
    assert_eq!(first.status, Status::Timeout, "its first call took 30 quanta: {}", first.detail);
    // The node hears of it at about that time.
    while node.metrics().workers[0].stocked.evictions < 2 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_call_that_overruns_by_less_than_the_worker_looks_is_found_out() {
    let _watchdog = Watchdog::new(LIMIT);
    let limits = Limits { quantum_ns: 100_000, policy: Policy::Kill, ..Limits::default() };
    let node = node("work_a", limits);
    let body = rounds(&node, Duration::from_millis(2)).to_string();
    let call = |body: &str| node.call("work_a", Request::new(body.as_bytes())).status;
    for _ in 0..2 {
        let statuses: Vec<_> = (0..50).map(|_| call(&body)).collect();
        let ok = statuses.iter().filter(|status| **status == Status::Ok).count();
        let ended = statuses.iter().filter(|status| **status == Status::Timeout).count();
        assert_eq!(ok + ended, statuses.len(), "{statuses:?}");
        assert!(ok <= UNKNOWN, "{ok} calls took 20 quanta each: {statuses:?}");
        // It is trusted again after enough that are short.
        for _ in 0..1000 {
            let status = call("10");
            assert!([Status::Ok, Status::Timeout].contains(&status), "{status:?}");
        }
    }
    assert_eq!(node.workers()[0].restarts, 0);
}

#[test]
fn short_calls_come_between_calls_that_overrun_by_less_than_the_worker_looks() {
    const CALLS: usize = 60;
    const WANTED: usize = 200;
    let _watchdog = Watchdog::new(LIMIT);
    let node = node("work_a", Limits { quantum_ns: 100_000, ..Limits::default() });
    let body = rounds(&node, Duration::from_millis(3)).to_string();
    let left = || {
        node.poll();
        node.stats().outstanding
    };
    let (mut short, mut between) = (0, 0);
    while short < WANTED {
        let flood: Vec<_> = (0..CALLS)
            .map(|_| node.submit("work_a", Request::new(body.as_bytes())).expect("a free slot"))
            .collect();
        let mut shorts = Vec::new();
        while left() > 0 {
            let since = now();
            shorts.push((since, done(&node.call("work_c", b"1".as_slice()))));
        }
        let ends: Vec<u128> = flood.into_iter().map(|call| done(&call.wait())).collect();
        let among = |(_, done): &&(u128, u128)| ends.iter().any(|end| end > done);
        for (since, done) in shorts.iter().filter(among) {
            short += 1;
            between += usize::from(!ends.iter().any(|end| (since..done).contains(&end)));
        }
    }
    // They wait for a slice, of which a call has thirty. Where it were not interrupted, each would wait for the end of one; so does who stands still before he submits.
    assert!(2 * between > short, "only {between} of {short} did not wait for the end of another call");
}

/// CPU time of a worker's process, in nanoseconds.
fn cpu_ns(node: &Node) -> u64 {
    let pid = node.workers()[0].pid.expect("it has a worker");
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("it is alive");
    text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("a number")
}

/// Whether the worker had less than a twentieth of its core since then: a call that has less than a thirty-second of it counts as blocked.
fn is_starved(since: Instant, used_ns: u64) -> bool {
    since.elapsed() > 20 * Duration::from_nanos(used_ns)
}

#[test]
fn a_call_for_a_worker_that_slept_is_ended_at_its_budget() {
    const BUDGET_NS: u64 = 200_000_000;
    let _watchdog = Watchdog::new(LIMIT);
    let node =
        node("spin_forever", Limits { quantum_ns: BUDGET_NS, policy: Policy::Kill, ..Limits::default() });
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(400));
        let (start, before) = (Instant::now(), cpu_ns(&node));
        let completion = node.call("spin_forever", Request::new(b""));
        let used = cpu_ns(&node) - before;
        assert_eq!(completion.status, Status::Timeout, "{}", completion.detail);
        if is_starved(start, used) {
            continue;
        }
        assert!(completion.cpu_ns >= BUDGET_NS, "it is said to have used {} ns", completion.cpu_ns);
        assert!(
            (BUDGET_NS / 10 * 8..BUDGET_NS / 10 * 15).contains(&used),
            "it has used {used} ns of {BUDGET_NS}"
        );
    }
}

fn bulky() -> PathBuf {
    let functions = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../functions"));
    attacks::build(Path::new(env!("CARGO_TARGET_TMPDIR")), [functions.join("bulky")], "bulky-module")
        .join("bulky.so")
}

/// The worker copies 15 MiB three times for each of its slices.
#[test]
fn what_it_takes_to_keep_the_state_of_a_call_is_its_own() {
    const BULKY: u64 = 30;
    let _watchdog = Watchdog::new(LIMIT);
    let limits = Limits { budget_ns: 100_000_000_000, ..Limits::default() };
    let config = FunctionConfig::default().limits(limits).deadline(LIMIT);
    // Of two contexts each function has one, so that the bulky calls come one after the other.
    let node = probe_node()
        .module(bulky())
        .function("bulky_work", config.clone())
        .function("work_a", config)
        .suspended_max(1)
        .start()
        .expect("a node with both modules starts");
    let rounds = rounds(&node, Duration::from_millis(4));
    let [long, short] = [2, 1].map(|times| (times * rounds).to_string());
    let submit =
        |function, body: &str| node.submit(function, Request::new(body.as_bytes())).expect("a free slot");
    loop {
        let before = cpu_ns(&node);
        let bulky: Vec<_> = (0..BULKY).map(|_| submit("bulky_work", &long)).collect();
        let others: Vec<_> = (0..50).map(|_| submit("work_a", &short)).collect();
        let since = now();
        let others: Vec<Completion> = others.into_iter().map(Call::wait).collect();
        let until = others.iter().map(done).max().expect("fifty");
        let used: u64 = others.iter().map(|other| other.cpu_ns).sum();
        let bulky: Vec<Completion> = bulky.into_iter().map(Call::wait).collect();
        assert!(
            bulky.iter().all(|call| call.body.starts_with(b"0 3 ")),
            "it has found what another has left"
        );
        let ends: Vec<u128> = bulky.iter().map(done).collect();
        let each = (cpu_ns(&node) - before).saturating_sub(used) / BULKY;
        let beside = ends.iter().filter(|end| (since..until).contains(*end)).count() as u64;
        eprintln!("{used} ns, and {beside} bulky calls of {each} ns");
        // As much as those, but for what calls use at the ends.
        assert!(beside * each <= used / 2 * 3 + each, "it was left {used} ns beside {beside} of {each} ns");
        // Unless this thread stood still until there was nobody any more who wanted the core.
        if since < until && ends.iter().any(|end| *end > until) {
            break;
        }
    }
}

/// Memory of a worker's own, in bytes.
fn resident(node: &Node) -> u64 {
    let pid = node.workers()[0].pid.expect("it has a worker");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it is alive");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("it is there");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}

/// 15 MiB for each of them.
#[test]
fn memory_in_which_much_was_kept_of_calls_is_given_back() {
    const CALLS: u64 = 6;
    const EACH: u64 = 15 << 20;
    let _watchdog = Watchdog::new(LIMIT);
    let limits = Limits { budget_ns: 100_000_000_000, ..Limits::default() };
    let config = FunctionConfig::default().limits(limits).deadline(LIMIT);
    let node = probe_node().module(bulky()).function("bulky_work", config).start().expect("a node starts");
    // Also the other way in which it is used: what a call writes in the module's memory is the worker's own from then on.
    assert_eq!(node.call("bulky_work", b"1".as_slice()).status, Status::Ok);
    let before = resident(&node);
    let mut most = 0;
    while most < before + (CALLS - 2) * EACH {
        let submit = |_| node.submit("bulky_work", Request::new(b"6000000")).expect("a free slot");
        let calls: Vec<_> = (0..CALLS).map(submit).collect();
        node.poll();
        while node.stats().outstanding > 0 {
            most = most.max(resident(&node));
            node.poll();
        }
        for call in calls {
            let completion = call.wait();
            assert_eq!(completion.status, Status::Ok, "{}", completion.detail);
        }
    }
    // Served after the last of them has been cleaned up.
    assert_eq!(node.call("echo", b"x".as_slice()).status, Status::Ok);
    let after = resident(&node);
    eprintln!("{} MiB before, {} at most, {} after", before >> 20, most >> 20, after >> 20);
    assert!(after < before + CALLS / 2 * EACH, "it has kept {} MiB", (after - before) >> 20);
}

#[test]
fn a_call_is_unwound_before_its_deadline() {
    let _watchdog = Watchdog::new(LIMIT);
    let limits = Limits { stateful: true, budget_ns: 100_000_000_000, ..Limits::default() };
    let config = FunctionConfig::default().limits(limits).deadline(LIMIT);
    // A worker that has no core for a second does not hang.
    let builder = probe_node().module(bulky()).function("guarded", config).stall(LIMIT);
    let node = builder.start().expect("a node starts");
    let count = || node.invoke("guarded", b"count".as_slice()).expect("it counts").body;
    // Where the machine takes the core from the worker for the last millisecond the call is ended by force.
    let is_unwound = (0..1000).any(|round| {
        let completion = node.call("guarded", Request::new(b"60000000").deadline(Duration::from_millis(30)));
        let text = String::from_utf8_lossy(&completion.body).into_owned() + &completion.detail;
        match completion.status {
            Status::Expired => false,
            status => {
                assert_eq!(status, Status::Timeout, "{text}");
                eprintln!("round {round}: {text}");
                // Either way its instance is as new: what is done when a call is unwound may be done by half.
                assert_eq!(count(), b"0", "{text}");
                text.contains("deadline") && text.contains("safe point")
            }
        }
    });
    assert!(is_unwound, "it was ended by force each time");
    assert_eq!(node.workers()[0].restarts, 0);
}

/// Threads that want a core all the time.
struct Hogs(Arc<AtomicBool>);

impl Hogs {
    fn new(core: u32, count: usize) -> Self {
        let run = Arc::new(AtomicBool::new(true));
        for _ in 0..count {
            let run = Arc::clone(&run);
            std::thread::spawn(move || {
                affinity::pin_to(core).expect("the worker has that core");
                while run.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(run)
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[test]
fn what_others_take_of_the_core_is_not_held_against_a_call() {
    let _watchdog = Watchdog::new(LIMIT);
    for policy in [Policy::Share, Policy::Kill] {
        // Four times what the call takes, which is more where others share the processor's caches with it; the others take five times as much of the core.
        let budget_ns = 400_000_000;
        let quantum_ns = if policy == Policy::Kill { budget_ns } else { 1_000_000 };
        let node = node("work_a", Limits { quantum_ns, budget_ns, policy, ..Limits::default() });
        let body = rounds(&node, Duration::from_millis(100)).to_string();
        let core = node.workers()[0].cpu.expect("it is pinned");
        let hogs = Hogs::new(core, 5);
        for _ in 0..3 {
            let (start, before) = (Instant::now(), cpu_ns(&node));
            let completion = node.call("work_a", Request::new(body.as_bytes()));
            let used = cpu_ns(&node) - before;
            eprintln!("{:?} for {used} ns of CPU, and {} as said", start.elapsed(), completion.cpu_ns);
            if is_starved(start, used) {
                continue;
            }
            assert_eq!(completion.status, Status::Ok, "{policy:?}: {}", completion.detail);
            // Within what the kernel has not added up yet.
            assert!(completion.cpu_ns <= used + 10_000_000, "{policy:?}: it is charged too much");
        }
        drop(hogs);
    }
}

#[test]
fn no_more_calls_are_suspended_than_may_be() {
    const SUSPENDED_MAX: u32 = 8;
    const FUNCTIONS: [&str; 3] = ["spin_forever", "sleep_spin", "checkpoint_spin"];
    let _watchdog = Watchdog::new(LIMIT);
    let limits = Limits { budget_ns: 600_000_000_000, ..Limits::default() };
    let config = FunctionConfig::default().limits(limits).deadline(LIMIT);
    let builder = probe_node().slots(256, 0).suspended_max(SUSPENDED_MAX);
    let builder = FUNCTIONS.iter().fold(builder, |builder, name| builder.function(*name, config.clone()));
    let node = builder.start().expect("a node with the probe starts");
    let submit = |name: &&str| node.submit(*name, Request::new(b"200000000")).expect("a free slot");
    // One function has half of the contexts at most.
    let of_one: Vec<_> = (0..20).map(|_| submit(&FUNCTIONS[0])).collect();
    for _ in 0..20 {
        assert_eq!(node.invoke("echo", b"x".as_slice()).expect("it is served").body, b"x");
    }
    let started_of_one = of_one.into_iter().map(Call::cancel).filter(|is_taken_back| !is_taken_back).count();
    assert!(
        (1..=SUSPENDED_MAX as usize / 2 + 1).contains(&started_of_one),
        "{started_of_one} of one function"
    );
    let calls: Vec<_> = (0..20).flat_map(|_| FUNCTIONS.iter().map(submit)).collect();
    // The worker still serves others: it has come round by then, several times.
    for _ in 0..20 {
        assert_eq!(node.invoke("echo", b"x".as_slice()).expect("it is served").body, b"x");
    }
    // What cannot be taken back has started, and none of these is over.
    let started =
        started_of_one + calls.into_iter().map(Call::cancel).filter(|is_taken_back| !is_taken_back).count();
    let most = SUSPENDED_MAX as usize + 1;
    assert!((FUNCTIONS.len()..=most).contains(&started), "{started} calls have contexts, of {most}");
}
