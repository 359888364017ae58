//! Machine code of a call's own that waits in the kernel, blocks the alarm or switches it off: it is ended, or what it leaves is put right before the next call.
//!
//! In this process, since the sandbox denies such code most ways to do so: a worker's scheduler runs in the test's thread, and the functions are the test's.
#![expect(unsafe_code, reason = "is entered as functions, and does what only machine code can")]

use std::ffi::c_void;
use std::path::Path;
use std::time::Duration;

use microfaas_abi::{Call, OUTCOME_OK};
use microfaas_control::{Limits, Policy};
use microfaas_e2e::inside::{Ended, Inside};
use microfaas_e2e::{Watchdog, attacks};
use microfaas_lane::Status;
use microfaas_sys::clock::thread_cpu_ns;

const LIMIT: Duration = Duration::from_secs(240);

/// Uses so much of the core, however long that takes.
fn keep_busy(time: Duration) {
    let start = thread_cpu_ns();
    while u128::from(thread_cpu_ns() - start) < time.as_nanos() {
        std::hint::spin_loop();
    }
}

extern "C" fn wait_for_ever(_: *mut c_void) -> u32 {
    loop {
        // SAFETY: waits for a signal.
        unsafe { libc::pause() };
    }
}

/// Runs far over its quantum, and returns.
extern "C" fn overrun(_: *mut c_void) -> u32 {
    keep_busy(Duration::from_millis(30));
    OUTCOME_OK
}

extern "C" fn block_the_alarm(_: *mut c_void) -> u32 {
    // SAFETY: all-zero is a valid signal set.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is initialised.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGALRM) };
    // SAFETY: reads the set.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    keep_busy(Duration::from_millis(200));
    OUTCOME_OK
}

extern "C" fn switch_the_alarm_off(_: *mut c_void) -> u32 {
    // SAFETY: all-zero is a valid setting: never.
    let never: libc::itimerspec = unsafe { std::mem::zeroed() };
    for timer in 0..16 {
        // SAFETY: reads one setting; whoever has no such timer is refused.
        unsafe {
            libc::syscall(libc::SYS_timer_settime, timer, 0, &raw const never, std::ptr::null_mut::<c_void>())
        };
    }
    keep_busy(Duration::from_millis(200));
    OUTCOME_OK
}

extern "C" fn answer(argument: *mut c_void) -> u32 {
    // SAFETY: the scheduler passes a call that is this one's until it returns.
    let call = unsafe { &mut *argument.cast::<Call>() };
    // SAFETY: the buffer has room for thousands of bytes.
    unsafe { call.out.write(b'x') };
    call.out_body_len = 1;
    OUTCOME_OK
}

fn call(inside: &mut Inside, function: u32) -> Ended {
    inside.submit(function, b"");
    let submission = inside.claim().expect("it was submitted");
    inside.start(&submission);
    while inside.resume() {}
    inside.take().expect("it has ended")
}

#[test]
fn what_machine_code_does_to_the_alarm_ends_with_its_call() {
    let _watchdog = Watchdog::new(LIMIT);
    let mut inside = Inside::new(4).expect("a scheduler");
    let probe = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../functions/probe")).to_owned();
    let modules = attacks::build(Path::new(env!("CARGO_TARGET_TMPDIR")), [probe], "alarm-modules");
    let limits = Limits { quantum_ns: 1_000_000, budget_ns: 20_000_000, ..Limits::default() };
    let killed = Limits { policy: Policy::Kill, ..limits };
    let like = inside.load(&modules.join("probe.so"), &[("echo", limits)]).expect("a module");
    let waiting = inside.add_entry(wait_for_ever, like, limits);
    let honest = inside.add_entry(answer, like, limits);
    for _ in 0..3 {
        let ended = call(&mut inside, waiting);
        assert_eq!(ended.status, Status::Timeout);
        assert_eq!(String::from_utf8_lossy(&ended.body), "blocked without using its budget");
        assert_eq!(
            (call(&mut inside, honest).status, call(&mut inside, honest).body),
            (Status::Ok, b"x".to_vec())
        );
    }
    for entry in [block_the_alarm, switch_the_alarm_off] {
        let hostile = inside.add_entry(entry, like, limits);
        let overruns = inside.add_entry(overrun, like, killed);
        for _ in 0..3 {
            assert_eq!(call(&mut inside, hostile).status, Status::Ok, "nothing could end it");
            assert_eq!(call(&mut inside, overruns).status, Status::Timeout, "no alarm came");
        }
    }
}
