//! What a call is charged, and its function: its own time on the core with what it takes to keep its state, and nothing that others used.
//!
//! In this process, since a worker does not say what it has charged a function: its scheduler runs in the test's thread. All that is compared is CPU time of this thread.

use std::path::Path;
use std::time::Duration;

use microfaas_control::{BUDGET_NS_MAX, Limits};
use microfaas_e2e::inside::{Ended, Inside};
use microfaas_e2e::{Watchdog, attacks};
use microfaas_lane::Status;
use microfaas_sys::clock::thread_cpu_ns;

const LIMIT: Duration = Duration::from_secs(600);
/// Calls that share the core.
const WIDTH: u32 = 6;

/// Calls of these functions by turns, each started before the first is over. Returns them as they ended, how often one was suspended, and the CPU time of all that.
fn share(inside: &mut Inside, calls: &[(u32, &str)]) -> (Vec<Ended>, u64, u64) {
    for (function, rounds) in calls {
        inside.submit(*function, rounds.as_bytes());
    }
    let before = thread_cpu_ns();
    let mut pairs = 0;
    while let Some(submission) = inside.claim() {
        inside.start(&submission);
    }
    while inside.resume() {
        pairs += 1;
    }
    let used_ns = thread_cpu_ns() - before;
    let ended: Vec<_> = std::iter::from_fn(|| inside.take()).collect();
    assert_eq!(ended.len(), calls.len());
    for end in &ended {
        assert_eq!(end.status, Status::Ok, "{}", String::from_utf8_lossy(&end.body));
    }
    (ended, pairs, used_ns)
}

fn billed(ended: &[Ended]) -> u64 {
    ended.iter().map(|end| end.cpu_ns).sum()
}

#[test]
fn a_call_pays_for_what_it_uses_and_for_its_state_and_for_nothing_else() {
    let _watchdog = Watchdog::new(LIMIT);
    let functions = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../functions"));
    let crates = ["probe", "bulky"].map(|name| functions.join(name));
    let modules = attacks::build(Path::new(env!("CARGO_TARGET_TMPDIR")), crates, "billing-modules");
    let mut inside = Inside::new(2 * WIDTH).expect("a scheduler");
    let limits = Limits { quantum_ns: 500_000, budget_ns: BUDGET_NS_MAX, ..Limits::default() };
    let small = inside.load(&modules.join("probe.so"), &[("work_a", limits)]).expect("a module");
    let bulky = inside.load(&modules.join("bulky.so"), &[("bulky_work", limits)]).expect("a module");

    // Each waits for five others after each of its slices, and pays for none of these.
    let (ended, pairs, used_ns) = share(&mut inside, &[(small, "4000000"); WIDTH as usize]);
    assert!(pairs >= u64::from(WIDTH), "they were suspended {pairs} times");
    let bill_ns = billed(&ended);
    eprintln!("{bill_ns} ns of {used_ns} are charged, {pairs} slices");
    assert!(bill_ns <= used_ns / 2 * 3, "they are charged {bill_ns} ns, and all used {used_ns}");
    assert!(bill_ns >= used_ns / 2, "they are charged {bill_ns} ns, and all used {used_ns}");
    let (most, least) = (ended.iter().map(|end| end.cpu_ns).max(), ended.iter().map(|end| end.cpu_ns).min());
    assert!(most < least.map(|ns| 3 * ns), "the same work is charged {least:?} and {most:?}");

    // 15 MiB are copied three times for each slice, which is most of what is used.
    let (ended, pairs, used_ns) = share(&mut inside, &[(bulky, "16000000"); 2]);
    assert!(pairs >= 2, "they were suspended {pairs} times");
    let bill_ns = billed(&ended);
    eprintln!("{bill_ns} ns of {used_ns} are charged, {pairs} slices");
    assert!(bill_ns <= used_ns / 2 * 3, "they are charged {bill_ns} ns, and all used {used_ns}");
    // All but the resets at their ends, of which there are two.
    assert!(bill_ns >= used_ns / 2, "they are charged {bill_ns} ns, and all used {used_ns}");

    // A reset comes after the answer, so it is the function's and not the call's.
    let rounds = 20;
    let (before, used_ns) = (inside.spent_ns(), thread_cpu_ns());
    let bill_ns: u64 = (0..rounds).map(|_| billed(&share(&mut inside, &[(bulky, "1")]).0)).sum();
    let (spent_ns, used_ns) = (inside.spent_ns() - before, thread_cpu_ns() - used_ns);
    eprintln!("{bill_ns} ns of {used_ns} are charged to calls, {spent_ns} to their function");
    assert!(spent_ns >= used_ns / 2, "the function is charged {spent_ns} ns of {used_ns}");
    assert!(bill_ns < spent_ns / 2, "calls that are short are charged {bill_ns} ns of {spent_ns}");
}
