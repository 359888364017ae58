//! Builds `tests/functions/probe` for real, loads it, and calls it as a worker would.

mod test_worker;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use microfaas_abi::{CALL_RETRIED, MESSAGE_BYTES, OUTCOME_ERROR, OUTCOME_OK, OUTCOME_PANIC};
use microfaas_build::{BuildOptions, BuiltModule, Profile, build, inspect};
use object::{Object, ObjectSymbol};
use test_worker::{Answer, Worker};

/// The probe module, built once for all tests here.
fn probe() -> &'static BuiltModule {
    static MODULE: OnceLock<BuiltModule> = OnceLock::new();
    MODULE.get_or_init(|| {
        watchdog();
        let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let probe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/functions/probe");
        let mut options = BuildOptions::new([probe], temporary.join("modules"));
        options.target_dir = Some(temporary.join("target"));
        options.profile = Profile::Release;
        let mut lines = Vec::new();
        let modules = build(&options, &mut |line| lines.push(line.to_owned()));
        let modules = modules.unwrap_or_else(|e| panic!("{e}\n{}", e.cargo_output().unwrap_or_default()));
        assert!(lines[0].starts_with("building probe (echo, "), "{lines:?}");
        modules.into_iter().next().expect("one crate makes one module")
    })
}

/// A compiler that hangs must not hang the tests.
fn watchdog() {
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(900));
        eprintln!("watchdog: building the probe took 15 minutes");
        std::process::exit(1);
    });
}

fn worker() -> Worker {
    Worker::load(&probe().path)
}

fn check(worker: &mut Worker, function: &str, body: &[u8], expect: &[u8]) {
    let answer = worker.call(function, body, &[]);
    let shown = String::from_utf8_lossy(&answer.body[..answer.body.len().min(80)]).into_owned();
    assert_eq!(answer.outcome, OUTCOME_OK, "{function}: {shown} {}", worker.message());
    assert!(answer.body == expect, "{function} answered {} bytes: {shown}", answer.body.len());
}

#[test]
fn the_manifest_is_the_table() {
    let module = probe();
    assert_eq!(inspect(&module.path).unwrap().functions, module.functions);
    assert_eq!(worker().names(), module.functions);
    assert_eq!(module.path, PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("modules/probe.so"));
}

#[test]
fn one_symbol_is_exported_and_memory_functions_are_inside() {
    let bytes = std::fs::read(&probe().path).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let names = |defined: bool| -> Vec<String> {
        let symbols = file.dynamic_symbols().filter(|symbol| symbol.is_definition() == defined);
        symbols.filter_map(|symbol| symbol.name().ok().map(str::to_owned)).collect()
    };
    assert_eq!(names(true), ["microfaas_module"]);
    let memory = [
        "malloc",
        "calloc",
        "realloc",
        "free",
        "posix_memalign",
        "aligned_alloc",
        "__cxa_thread_atexit_impl",
    ];
    let imported = names(false);
    assert!(imported.iter().any(|name| name == "memcpy"), "{imported:?}");
    assert!(!imported.iter().any(|name| memory.contains(&name.as_str())), "{imported:?}");
}

#[test]
fn bodies_of_any_length_come_back() {
    let mut worker = worker();
    for len in [0, 1, 7, 8, 9, 64, 1000, 70_000] {
        let body: Vec<u8> = (0..len).map(|i: u32| i.to_le_bytes()[0]).collect();
        for capacity in [0, 16, 100_000] {
            worker.out_capacity = capacity;
            check(&mut worker, "echo", &body, &body);
            check(&mut worker, "echo_vec", &body, &body);
            let mut expect = fnv1a(&body).to_le_bytes().to_vec();
            expect.extend_from_slice(&body);
            check(&mut worker, "checksum", &body, &expect);
        }
    }
    let pattern: Vec<u8> = (0..251).cycle().take(200_000).collect();
    check(&mut worker, "big", b"200000", &pattern);
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn metadata_goes_in_and_comes_out() {
    let mut worker = worker();
    for capacity in [0, 4096] {
        worker.out_capacity = capacity;
        let answer = worker.call("reverse_meta", b"", &[(":method", "GET"), ("a", "1"), ("a", "2")]);
        assert_eq!(answer.outcome, OUTCOME_OK);
        assert_eq!(answer.meta(), [("meta-a", "2"), ("meta-a", "1"), ("meta-method", "GET")]);
        assert!(answer.body.is_empty());
    }
}

#[test]
fn an_error_carries_text_and_status() {
    let mut worker = worker();
    let Answer { outcome, body, meta } = worker.call("fail", b"no tea", &[]);
    assert_eq!((outcome, body.as_slice()), (OUTCOME_ERROR, &b"no tea"[..]));
    assert_eq!(meta, [(":status".to_owned(), "418".to_owned())]);
    let late = worker.call("fail_late", b"", &[]);
    assert_eq!(late.outcome, OUTCOME_ERROR);
    assert_eq!(late.body, b"invalid digit found in string", "what was written in place is gone");
    assert!(late.meta.is_empty());
}

#[test]
fn a_panic_is_caught_and_its_message_kept() {
    let mut worker = worker();
    let answer = worker.call("panic", b"out of tea", &[]);
    assert_eq!((answer.outcome, answer.body.len()), (OUTCOME_PANIC, 0));
    let message = worker.message();
    assert!(message.starts_with("out of tea (probe/src/lib.rs:"), "{message}");
    let long = "ä".repeat(MESSAGE_BYTES);
    assert_eq!(worker.call("panic", long.as_bytes(), &[]).outcome, OUTCOME_PANIC);
    assert_eq!(worker.message(), "ä".repeat(MESSAGE_BYTES / 2));
    check(&mut worker, "echo", b"still here", b"still here");
}

#[test]
fn a_checkpoint_ends_a_call_only_when_asked_to() {
    let mut worker = worker();
    worker.pending(1, 0);
    assert_eq!(worker.call("checkpoint_spin", b"10", &[]).outcome, OUTCOME_OK);
    worker.pending(1, 1);
    assert_eq!(worker.call("checkpoint_spin", b"1000000000", &[]).outcome, OUTCOME_PANIC);
    assert_eq!(worker.message(), "ended at a checkpoint");
    worker.pending(0, 1);
    assert_eq!(worker.call("checkpoint_spin", b"10", &[]).outcome, OUTCOME_OK);
}

#[test]
fn init_runs_once_and_its_state_lasts() {
    let mut worker = worker();
    for _ in 0..3 {
        check(&mut worker, "init_state", b"", b"1 word 99");
    }
}

#[test]
fn all_memory_comes_from_the_arena() {
    let mut worker = worker();
    let before = worker.arena_taken();
    check(&mut worker, "alloc", b"1000000", b"245");
    assert!(worker.arena_taken() - before >= 1_000_000);
    // What the standard library takes past the global allocator, too: its list of thread-local destructors.
    let (taken, blocks) = (worker.arena_taken(), worker.arena_blocks());
    check(&mut worker, "hoard_local", b"", b"1");
    assert!(worker.arena_taken() > taken && worker.arena_blocks() > blocks);
    // There is no reset here, so that it must have stayed.
    check(&mut worker, "hoard_local", b"", b"2");
}

#[test]
fn the_caller_s_deadline_and_retries_are_seen() {
    let mut worker = worker();
    check(&mut worker, "time_left", b"", b"none");
    worker.deadline_ns = 1;
    worker.flags = CALL_RETRIED;
    check(&mut worker, "time_left", b"", b"0");
}
