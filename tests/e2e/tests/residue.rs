//! What calls leave behind where no reset looks: in the C library, in the worker's own memory, in the responses of others.
//!
//! Needs the worker's program: `cargo build -p microfaas-worker`.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use microfaas_e2e::{Watchdog, attacks, program};
use microfaas_node::{Completion, FunctionConfig, Limits, Node, NodeBuilder, Request, Status};

const LIMIT: Duration = Duration::from_secs(300);

static MODULES: LazyLock<PathBuf> = LazyLock::new(|| {
    let functions = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../functions"));
    let crates = ["residue", "probe"].map(|name| functions.join(name));
    attacks::build(Path::new(env!("CARGO_TARGET_TMPDIR")), crates, "residue-modules")
});

fn builder() -> NodeBuilder {
    let worker = program("microfaas-worker");
    Node::builder().modules(&*MODULES).worker_binary(worker).workers(1).deadline_default(LIMIT)
}

fn stateful(budget: Duration) -> FunctionConfig {
    let budget_ns = u64::try_from(budget.as_nanos()).unwrap();
    FunctionConfig::default()
        .limits(Limits { stateful: true, budget_ns, ..Limits::default() })
        .deadline(LIMIT)
}

fn call(node: &Node, name: &str, body: &[u8]) -> Completion {
    node.call(name, Request::new(body))
}

/// Status and text, whether that is the response or the reason.
fn said(completion: &Completion) -> (Status, String) {
    (completion.status, String::from_utf8_lossy(&completion.body).into_owned() + &completion.detail)
}

fn check_same_worker(node: &Node) {
    let worker = node.workers()[0];
    assert_eq!((worker.generation, worker.restarts), (1, 0), "the worker was replaced");
}

/// Each wait and each handle of a thread asks for a key of thread-specific data, of which a process has 1,024.
#[test]
fn calls_that_wait_in_the_standard_library_use_nothing_up() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = builder().start().unwrap();
    let first = said(&call(&node, "thread_handle", b""));
    assert_eq!((first.0, first.1.ends_with(") 1")), (Status::Ok, true), "{}", first.1);
    let other = said(&call(&node, "thread_id", b""));
    assert_eq!(other.0, Status::Ok, "{}", other.1);
    for round in 0..3000 {
        assert_eq!(said(&call(&node, "thread_handle", b"")), first, "call {round}");
        if round % 10 == 0 {
            assert_eq!(said(&call(&node, "thread_id", b"")), other, "beside call {round}");
        }
    }
    check_same_worker(&node);
}

/// Kibibytes of the worker's writable memory.
fn data_kib(node: &Node) -> u64 {
    let pid = node.workers()[0].pid.expect("a serving worker has a process");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).expect("the kernel says it");
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The C library's lists of what to do in a new process are in its own heap, which is the worker's.
#[test]
fn a_process_that_is_refused_leaves_nothing_in_the_worker() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = builder().start().unwrap();
    let spawn = || said(&call(&node, "spawn_elsewhere", b"1000000"));
    let (status, text) = spawn();
    assert_eq!(status, Status::Denied, "{text}");
    let before = data_kib(&node);
    for _ in 0..200 {
        assert_eq!(spawn(), (status, text.clone()));
    }
    let after = data_kib(&node);
    assert!(after < before + 20_000, "{before} KiB before, {after} KiB after 200 calls");
    check_same_worker(&node);
}

#[test]
fn the_environment_is_empty_whatever_a_call_puts_there() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = builder().start().unwrap();
    for _ in 0..3 {
        assert_eq!(call(&node, "become_another", b"a secret").status, Status::Denied);
        assert_eq!(said(&call(&node, "variables", b"")), (Status::Ok, "[] None".to_owned()));
    }
    check_same_worker(&node);
}

#[test]
fn errors_of_the_system_have_their_words() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = builder().start().unwrap();
    for number in [1, 2, 13, 9999, -1] {
        let answer = said(&call(&node, "os_error", number.to_string().as_bytes()));
        assert_eq!(answer, (Status::Ok, std::io::Error::from_raw_os_error(number).to_string()));
    }
}

#[test]
fn a_response_that_is_kept_beyond_its_call_reaches_no_other() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = builder().function("keep_response", stateful(Duration::from_secs(10))).start().unwrap();
    let keep = |body: &[u8]| said(&call(&node, "keep_response", body));
    let own = "of the first call";
    for (way, answer) in [
        ("extend", "mine"),
        ("resize", "mine"),
        ("read", "mineof the first call"),
        ("give", own),
        ("drop", "mine"),
    ] {
        assert_eq!(keep(b"begin"), (Status::Ok, "begun".to_owned()));
        assert_eq!(call(&node, "echo", b"between").body, b"between");
        assert_eq!(keep(way.as_bytes()), (Status::Ok, answer.to_owned()), "{way}");
    }
    check_same_worker(&node);
}

#[test]
fn the_bytes_of_a_response_that_are_kept_for_ever_are_no_other_calls() {
    let _watchdog = Watchdog::new(LIMIT);
    let secret = b"what another function has answered, and nobody else is to know".as_slice();
    for settings in [FunctionConfig::default(), stateful(Duration::from_secs(10))] {
        let names = ["caught", "leak_response"];
        let node =
            names.into_iter().fold(builder(), |builder, name| builder.function(name, settings.clone()));
        let node = node.start().unwrap();
        assert_eq!(call(&node, "leak_response", b"begin").status, Status::Ok);
        for _ in 0..3 {
            assert_eq!(call(&node, "echo", secret).body, secret);
            let kept = call(&node, "leak_response", b"read").body;
            assert!(kept.iter().all(|byte| [0, b'x'].contains(byte)), "{}", String::from_utf8_lossy(&kept));
            assert_eq!(call(&node, "leak_response", b"write").status, Status::Ok);
        }
        check_same_worker(&node);
    }
}

#[test]
fn the_kept_memory_of_a_stateful_function_does_not_fill_by_itself() {
    let _watchdog = Watchdog::new(LIMIT);
    let names = ["header", "throw_text", "throw_value"];
    let node = names.into_iter().fold(builder().init_bytes(1 << 20), |builder, name| {
        builder.function(name, stateful(Duration::from_secs(10)))
    });
    let node = node.start().unwrap();
    for round in 0..3000 {
        let answer = call(&node, "header", b"2000");
        assert_eq!((answer.status, answer.body.len()), (Status::Ok, 2000), "{round}: {}", answer.detail);
    }
    for name in ["throw_text", "throw_value"] {
        for round in 0..1500 {
            let answer = call(&node, name, b"2000");
            assert_eq!(answer.status, Status::Panic, "{name} {round}: {}", answer.detail);
        }
    }
    // What panics while it is dropped is left, and is the function's own affair; the cause is told.
    let (status, text) = said(&call(&node, "throw_value", b"2001"));
    assert!(status == Status::Panic && text.starts_with("panic without a text"), "{text}");
    assert_eq!(call(&node, "throw_value", b"2000").status, Status::Panic);
    check_same_worker(&node);
}

#[test]
fn the_text_of_one_call_is_not_another_calls() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = builder().function("caught", stateful(Duration::from_secs(10))).start().unwrap();
    for _ in 0..3 {
        assert_eq!(said(&call(&node, "caught", b"catch")), (Status::Ok, "caught".to_owned()));
        assert!(
            said(&call(&node, "throw_text", b"9")).1.starts_with("ttttttttt "),
            "the text of another function"
        );
        let expected = (Status::Panic, "panic without a text".to_owned());
        assert_eq!(said(&call(&node, "caught", b"throw")), expected);
    }
    check_same_worker(&node);
}

#[test]
fn the_error_number_of_one_call_is_not_another_calls() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = builder().start().unwrap();
    for _ in 0..3 {
        assert_eq!(said(&call(&node, "error_number", b"")), (Status::Ok, "0 true".to_owned()));
    }
}

#[test]
fn aligned_memory_is_used_again() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = builder().arena_bytes(1 << 20).start().unwrap();
    for _ in 0..3 {
        assert_eq!(said(&call(&node, "aligned", b"100000")), (Status::Ok, "31".to_owned()));
    }
    check_same_worker(&node);
}

#[test]
fn memory_that_is_not_there_ends_the_call() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = builder().arena_bytes(1 << 20).start().unwrap();
    let reserve = |bytes: usize| said(&call(&node, "try_reserve", bytes.to_string().as_bytes()));
    assert_eq!(reserve(100_000), (Status::Ok, "there".to_owned()));
    assert_eq!(reserve(1 << 30).0, Status::Oom);
    let (status, text) = reserve(usize::MAX);
    assert!(status == Status::Ok && text.contains("exceeded"), "{text}");
    check_same_worker(&node);
}

const SAFE_POINTS: [&str; 7] = ["checkpoint", "in_place", "extend", "vec", "resize", "header", "time_left"];

#[test]
fn destructors_run_where_a_call_is_ended_at_a_safe_point() {
    let _watchdog = Watchdog::new(LIMIT);
    // A tenth of it is for unwinding, at most a millisecond: on a busy machine too little now and then.
    let node = builder().function("guarded", stateful(Duration::from_millis(20))).start().unwrap();
    for kind in SAFE_POINTS {
        let ran = (0..100).any(|_| match said(&call(&node, "guarded", kind.as_bytes())) {
            // Asked for by the destructor alone.
            (Status::Oom, _) => true,
            (status, text) => {
                assert_eq!(status, Status::Timeout, "{kind}: {text}");
                false
            }
        });
        assert!(ran, "{kind} is no safe point");
    }
    check_same_worker(&node);
}

#[test]
fn a_call_that_catches_its_end_has_ended_all_the_same() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = builder().function("guarded", stateful(Duration::from_millis(20))).start().unwrap();
    for kind in SAFE_POINTS {
        let body = format!("swallow {kind}");
        let caught = (0..100).any(|_| {
            let (status, text) = said(&call(&node, "guarded", body.as_bytes()));
            assert_eq!(status, Status::Timeout, "{kind}: {text}");
            text.contains("at a safe point")
        });
        assert!(caught, "{kind} is no safe point");
    }
    check_same_worker(&node);
}

#[test]
fn a_safe_point_in_a_callback_is_no_fault_of_the_function() {
    let _watchdog = Watchdog::new(LIMIT);
    let node = builder().function("guarded", stateful(Duration::from_millis(20))).start().unwrap();
    let ended = (0..100).any(|_| {
        let (status, text) = said(&call(&node, "guarded", b"callback checkpoint"));
        assert_eq!(status, Status::Timeout, "{text}");
        text.contains("at a safe point")
    });
    assert!(ended, "it was ended by force each time");
    check_same_worker(&node);
}
