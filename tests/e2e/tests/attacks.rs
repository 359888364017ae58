//! Every hostile function of `tests/attacks`, on a node that serves another function at the same time.
//!
//! Needs the worker's program: `cargo build -p microfaas-worker`. `MICROFAAS_ATTACKS` names another directory of cases.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use microfaas_e2e::Watchdog;
use microfaas_e2e::attacks::{self, Arena, Settings};
use microfaas_node::{FunctionConfig, Limits, Node, NodeBuilder, Policy, Status};

const LIMIT: Duration = Duration::from_secs(600);

fn scratch() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

#[test]
fn every_attack_ends_as_its_header_says() {
    let watchdog = Watchdog::new(LIMIT);
    let cases = attacks::own_cases();
    let mut arena = Arena::new(Settings::new(attacks::build_cases(scratch(), &cases)), &cases);
    let mut table =
        format!("{:<32} {:<44} {:<28} {:<6} {:>8}  verdict\n", "case", "required", "got", "worker", "ms");
    let mut failed = 0;
    for case in &cases {
        let row = format!("{:<32} {:<44}", case.name, case.required());
        let outcome = arena.run(case);
        let worker = if outcome.same_worker { "same" } else { "new" };
        let verdict =
            if outcome.wrong.is_empty() { "as required".to_owned() } else { outcome.wrong.join("; ") };
        failed += usize::from(!outcome.wrong.is_empty());
        let ms = outcome.longest.as_millis();
        writeln!(table, "{row} {:<28} {worker:<6} {ms:>8}  {verdict}", outcome.got()).unwrap();
    }
    eprintln!("{table}");
    assert_eq!(failed, 0, "{failed} of {} cases were not contained:\n{table}", cases.len());
    drop(watchdog);
}

fn builder() -> NodeBuilder {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../attacks");
    let modules = attacks::build_cases(scratch(), &attacks::read_all(Path::new(own)));
    Node::builder().modules(modules).workers(1).deadline_default(LIMIT)
}

#[test]
fn a_response_of_any_size_is_whole_or_refused() {
    let _watchdog = Watchdog::new(LIMIT);
    let most = 16 << 20;
    let node = builder().response_bytes(16 << 20).arena_bytes(64 << 20).start().unwrap();
    for len in [0, 1, 4095, 4096, 4097, 1 << 20, most - 1, most, most + 1, 32 << 20, 1 << 30, 1 << 62] {
        let completion = node.call("033_mem_response_oversized", u64::to_le_bytes(len).as_slice());
        match completion.status {
            Status::Ok => {
                assert!(
                    len <= most && completion.body.len() as u64 == len,
                    "{len}: {}",
                    completion.body.len()
                );
                assert!(completion.body.iter().all(|byte| *byte == 0x5a), "{len}");
            }
            status => {
                assert!(len > most && [Status::TooLarge, Status::Oom].contains(&status), "{len}: {status:?}")
            }
        }
        assert_eq!(node.invoke("echo", b"next".as_slice()).unwrap().body, b"next");
    }
    assert_eq!(node.workers()[0].restarts, 0);
}

#[test]
fn a_call_that_ends_at_its_quantum_is_answered_once_and_the_next_not_hit() {
    let _watchdog = Watchdog::new(LIMIT);
    let limits =
        Limits { quantum_ns: 100_000, budget_ns: 100_000, policy: Policy::Kill, ..Limits::default() };
    let config = FunctionConfig::default().limits(limits);
    let node = builder().function("023_cpu_just_under_quantum", config).start().unwrap();
    let mut ended = [0u32; 2];
    for i in 0..4000u32 {
        // A clear overrun now and then has the worker watch the next calls from their quantum on.
        let micros = if i % 32 == 0 { 10_000 } else { 85 + i % 30 };
        let completion = node.call("023_cpu_just_under_quantum", micros.to_le_bytes().as_slice());
        match completion.status {
            Status::Ok => assert_eq!(completion.body, [0xab; 8]),
            status => assert_eq!(status, Status::Timeout),
        }
        ended[usize::from(completion.status == Status::Ok)] += 1;
        assert_eq!(node.invoke("echo", i.to_le_bytes().as_slice()).unwrap().body, i.to_le_bytes());
    }
    assert!(ended.iter().all(|count| *count > 0), "all calls ended the same way: {ended:?}");
    assert_eq!((node.stats().accepted(), node.stats().outstanding, node.workers()[0].restarts), (8000, 0, 0));
}

/// Addresses and lengths of what a worker shares with its host and can write; empty where the kernel does not say.
fn shared_memory(pid: u32) -> Vec<(u64, u64)> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let writable = maps.lines().filter(|line| line.contains(" rw-s "));
    let ranges = writable.filter_map(|line| line.split_whitespace().next()?.split_once('-'));
    let number = |hex| u64::from_str_radix(hex, 16).expect("addresses are hexadecimal");
    ranges.map(|(from, to)| (number(from), number(to) - number(from))).collect()
}

#[test]
fn a_function_that_scribbles_over_the_lane_harms_nobody_but_its_worker() {
    let _watchdog = Watchdog::new(LIMIT);
    let regions = |node: &Node| shared_memory(node.workers()[0].pid.unwrap());
    let count = regions(&builder().start().unwrap()).len();
    eprintln!("{count} shared regions");
    for i in 0..count {
        for pattern in [0xff, 0, 0x80] {
            let node = builder().start().unwrap();
            let (start, len) = regions(&node)[i];
            let request = [start.to_le_bytes(), len.min(1 << 17).to_le_bytes()].concat();
            let request = [request.as_slice(), &[pattern]].concat();
            // Whatever it ends with, it ends, and once.
            let _ = node.call("081_hole_scribble_address", request.as_slice());
            let answered = std::iter::repeat_with(|| {
                std::thread::sleep(Duration::from_millis(1));
                node.invoke("echo", b"next".as_slice())
            });
            let answer = answered.take(20_000).find_map(Result::ok).expect("a worker that serves");
            assert_eq!(answer.body, b"next", "region {i}, pattern {pattern:#x}");
            assert_eq!(node.stats().outstanding, 0);
        }
    }
}
