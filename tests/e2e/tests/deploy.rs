//! Modules come and go while the node serves: every answer is of one version wholly, none is lost, and what cannot be loaded changes nothing.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use microfaas_e2e::versions::{image, of_another_abi, put, write};
use microfaas_e2e::{Watchdog, probe, program};
use microfaas_node::{
    CallError, DeployError, FunctionConfig, Limits, Node, NodeBuilder, Outcome, Reload, Request, Status,
};
use object::{Object, ObjectSection};
use tempfile::TempDir;

fn watchdog() -> Watchdog {
    Watchdog::new(Duration::from_secs(300))
}

/// A node of two workers with version 1.
fn node(directory: &TempDir) -> NodeBuilder {
    write(directory.path(), 1, '-');
    Node::builder().modules(directory.path()).worker_binary(program("microfaas-worker")).workers(2).pin(false)
}

fn start() -> (Node, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (node(&directory).start().unwrap(), directory)
}

fn text(node: &Node, function: &str, body: &str) -> String {
    let answer = node.call(function, Request::new(body.as_bytes()));
    assert_eq!(answer.status, Status::Ok, "{function}: {}", answer.detail);
    String::from_utf8(answer.body).unwrap()
}

/// What all workers answer, asked at once by keeping each busy.
fn versions(node: &Node) -> Vec<String> {
    let calls: Vec<_> = (0..4)
        .flat_map(|_| {
            let slow = node.submit("version_slow", b"2".as_slice().into());
            [slow, node.submit("version", Request::new(b"x"))]
        })
        .collect();
    let body = |call: Result<microfaas_node::Call, CallError>| {
        String::from_utf8(call.unwrap().wait().into_result().unwrap().body).unwrap()
    };
    calls.into_iter().map(body).collect()
}

fn expected(version: u32) -> Vec<String> {
    let pair = [format!("{version:04} {version:04}"), format!("{version:04} {version:04} x {version:04}")];
    std::iter::repeat_n(pair, 4).flatten().collect()
}

fn assert_serves(node: &Node, version: u32) {
    assert_eq!(versions(node), expected(version));
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} did not come about");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn pids(node: &Node) -> Vec<u32> {
    node.workers().iter().filter_map(|worker| worker.pid).collect()
}

fn kill(pid: u32) {
    // One that has gone since somebody looked is as good.
    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
}

#[test]
fn a_new_version_is_there_for_every_call_after_the_switch() {
    let _watchdog = watchdog();
    let (node, directory) = start();
    let pids = pids(&node);
    let handle = node.function("version").unwrap();
    let before = node.list();
    assert_eq!((before.len(), before[0].previous.clone()), (1, None));
    assert_serves(&node, 1);
    let done = node.deploy(write(directory.path(), 2, '-')).unwrap();
    assert_serves(&node, 2);
    assert_eq!(done.modules.len(), 1);
    let change = &done.modules[0];
    assert_eq!((change.outcome, change.module.as_str()), (Outcome::Replaced, "versions.so"));
    assert_eq!(change.before.as_ref(), Some(&before[0].digest));
    let now = node.describe("version_slow").unwrap();
    assert_eq!(
        (Some(&now.module.digest), now.module.previous.as_ref()),
        (change.digest.as_ref(), change.before.as_ref())
    );
    assert_eq!(now.id, 1, "a name keeps its number");
    assert_eq!(node.invoke(handle, b"".as_slice()).unwrap().body, b"0002 0002  0002", "a handle stays good");
    let again = node.deploy(directory.path()).unwrap();
    assert_eq!(again.modules[0].outcome, Outcome::Unchanged);
    // Something new beside it.
    let done = node.deploy(probe()).unwrap();
    assert_eq!(done.modules[0].outcome, Outcome::New);
    assert_eq!(text(&node, "echo", "new"), "new");
    assert_serves(&node, 2);
    assert_eq!(pids, self::pids(&node), "no worker was replaced for it");
}

#[test]
fn under_load_each_answer_is_of_one_version_and_none_is_lost() {
    const SWITCHES: u32 = 40;
    let _watchdog = watchdog();
    let (node, directory) = start();
    let (done, count) = (AtomicBool::new(false), AtomicU64::new(0));
    // The version that was deployed last, and whether the next one is on its way.
    let current = AtomicU64::new(1);
    std::thread::scope(|scope| {
        for pump in 0..2 {
            let (node, done, count, current) = (&node, &done, &count, &current);
            scope.spawn(move || {
                let handle = node.function("version").unwrap();
                for i in 0u64.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let least = current.load(Ordering::SeqCst);
                    let body = format!("{pump}:{i}");
                    let calls: Vec<_> =
                        (0..8).map(|_| node.submit(handle, Request::new(body.as_bytes()))).collect();
                    for call in calls {
                        let answer = call.unwrap().wait();
                        assert_eq!(answer.status, Status::Ok, "{}", answer.detail);
                        let answer = String::from_utf8(answer.body).unwrap();
                        let parts: Vec<&str> = answer.split(' ').collect();
                        assert_eq!(parts[2], body);
                        assert!(parts[0] == parts[1] && parts[1] == parts[3], "of two versions: {answer}");
                        assert!(parts[0].parse::<u64>().unwrap() >= least, "{answer} after {least}");
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for number in 2..2 + SWITCHES {
            node.deploy(write(directory.path(), number, '-')).unwrap();
            current.store(number.into(), Ordering::SeqCst);
            let seen = count.load(Ordering::Relaxed);
            until("further calls", || count.load(Ordering::Relaxed) > seen + 100);
        }
        done.store(true, Ordering::Relaxed);
    });
    let stats = node.stats();
    assert_eq!(stats.completed(Status::Ok), count.load(Ordering::Relaxed), "each call once");
    assert_eq!((stats.accepted(), stats.restarts), (stats.completed(Status::Ok), 0));
}

#[test]
fn a_module_that_cannot_be_loaded_changes_nothing() {
    let _watchdog = watchdog();
    let (node, directory) = start();
    let pids = pids(&node);
    let other = tempfile::tempdir().unwrap();
    let elsewhere = |name: &str, bytes: &[u8]| put(other.path(), name, bytes);
    let refused = |path: std::path::PathBuf, expected: &str| {
        let error = node.deploy(path).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(text(&node, "version", ""), "0001 0001  0001");
    };
    let mut half = image(2, '-');
    half.truncate(half.len() / 2);
    refused(elsewhere("versions.so", &half), "versions.so");
    refused(elsewhere("versions.so", b"no library"), "is not an ELF file");
    // What cannot be seen without loading it: it crashes the system's loader, in a process that serves nobody.
    let mut corrupt = image(2, '-');
    let file = object::File::parse(&*corrupt).unwrap();
    let (first, _) = file.section_by_name(".rela.dyn").unwrap().file_range().unwrap();
    let first = usize::try_from(first).unwrap();
    corrupt[first..first + 8].copy_from_slice(&(1u64 << 46).to_le_bytes());
    refused(elsewhere("versions.so", &corrupt), "cannot load module");
    refused(elsewhere("versions.so", &of_another_abi()), "ABI");
    for (letter, how) in [('E', "not today"), ('P', "in init"), ('A', "abort"), ('F', "openat")] {
        refused(write(other.path(), 2, letter), how);
    }
    refused(elsewhere("others.so", &image(2, '-')), "function `version` is in both");
    refused(other.path().join("missing.so"), "cannot be read");
    assert!(matches!(node.deploy(other.path().join("nowhere/x.so")), Err(DeployError::Module { .. })));
    // All of a directory or nothing: one of these is fine.
    put(other.path(), "versions.so", &image(2, '-'));
    refused(other.path().to_owned(), "is in both");
    assert_eq!(node.list().len(), 1);
    assert_eq!(self::pids(&node), pids, "no worker was replaced for it");
    assert_serves(&node, 1);
    node.deploy(write(directory.path(), 3, '-')).unwrap();
    assert_serves(&node, 3);
}

#[test]
fn what_was_before_comes_back() {
    let _watchdog = watchdog();
    let (node, directory) = start();
    assert!(matches!(node.rollback("version"), Err(DeployError::NothingBefore { .. })));
    node.deploy(write(directory.path(), 2, '-')).unwrap();
    // The file does not matter any more.
    std::fs::remove_file(directory.path().join("versions.so")).unwrap();
    node.rollback("version").unwrap();
    assert_serves(&node, 1);
    node.rollback("versions").unwrap();
    assert_serves(&node, 2);
    node.rollback("versions.so").unwrap();
    assert_serves(&node, 1);
    assert!(matches!(node.rollback("nothing"), Err(DeployError::Unknown { .. })));
    // A version whose `init` fails is not what is gone back to.
    assert!(node.deploy(write(directory.path(), 3, 'P')).is_err());
    node.rollback("versions").unwrap();
    assert_serves(&node, 2);
}

/// What was taken away and brought back has behind it what it had before.
#[test]
fn a_module_that_comes_back_has_its_past() {
    let _watchdog = watchdog();
    let (node, directory) = start();
    node.deploy(write(directory.path(), 2, '-')).unwrap();
    node.remove("versions").unwrap();
    node.rollback("versions").unwrap();
    assert_serves(&node, 2);
    node.rollback("versions").unwrap();
    assert_serves(&node, 1);
    // One that had none has none, and another image in its place has it behind it.
    node.deploy(probe()).unwrap();
    node.remove("probe").unwrap();
    node.rollback("probe").unwrap();
    assert!(matches!(node.rollback("probe"), Err(DeployError::NothingBefore { .. })));
    node.remove("versions").unwrap();
    node.deploy(write(directory.path(), 3, '-')).unwrap();
    node.rollback("versions").unwrap();
    assert_serves(&node, 1);
}

#[test]
fn a_removed_module_is_not_found_and_comes_back() {
    let _watchdog = watchdog();
    let (node, directory) = start();
    node.deploy(probe()).unwrap();
    let handle = node.function("version").unwrap();
    let running = node.submit("version_slow", b"100".as_slice().into()).unwrap();
    assert!(matches!(node.remove("version"), Err(DeployError::NotAlone { functions: 2, .. })));
    let done = node.remove("versions").unwrap();
    assert_eq!((done.modules[0].outcome, done.modules[0].digest.as_ref()), (Outcome::Removed, None));
    assert_eq!(running.wait().into_result().unwrap().body, b"0001 0001", "what runs is ended by it");
    assert_eq!(node.invoke(handle, b"".as_slice()), Err(CallError::UnknownFunction));
    assert_eq!(node.call("version_slow", b"1".as_slice()).status, Status::NotFound);
    assert!(matches!(node.remove("versions"), Err(DeployError::Unknown { .. })));
    assert!(node.describe("version").is_none() && node.list().len() == 1);
    assert_eq!(text(&node, "echo", "beside"), "beside");
    node.rollback("versions").unwrap();
    assert_serves(&node, 1);
    node.remove("versions").unwrap();
    node.deploy(write(directory.path(), 2, '-')).unwrap();
    assert_eq!(node.invoke(handle, b"".as_slice()).unwrap().body, b"0002 0002  0002");
}

#[test]
fn a_suspended_call_ends_on_its_version_while_new_calls_run_the_new_one() {
    let _watchdog = watchdog();
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { quantum_ns: 100_000, budget_ns: 60_000_000_000, ..Limits::default() };
    let config = FunctionConfig::default().limits(limits).deadline(Duration::from_secs(60));
    let node = node(&directory).workers(1).function("version_slow", config).start().unwrap();
    // Longer where a deployment has taken longer than the calls.
    for (number, time) in [(1, "300"), (4, "3000"), (7, "30000")] {
        let short = |of: u32| format!("{of:04} {of:04}").into_bytes();
        let whole = |of: u32| format!("{of:04} {of:04}  {of:04}");
        if number > 1 {
            node.deploy(write(directory.path(), number, '-')).unwrap();
        }
        let mut slow: Vec<_> =
            (0..3).map(|_| node.submit("version_slow", time.as_bytes().into()).unwrap()).collect();
        assert_eq!(text(&node, "version", ""), whole(number), "it was suspended for this one");
        node.deploy(write(directory.path(), number + 1, '-')).unwrap();
        assert_eq!(text(&node, "version", ""), whole(number + 1));
        node.poll();
        let run_still = node.stats().outstanding == 3;
        slow.push(node.submit("version_slow", b"1".as_slice().into()).unwrap());
        node.deploy(write(directory.path(), number + 2, '-')).unwrap();
        assert_eq!(text(&node, "version", ""), whole(number + 2));
        let answers: Vec<_> = slow.into_iter().map(|call| call.wait().into_result().unwrap().body).collect();
        assert_eq!(answers, [number, number, number, number + 1].map(short));
        if run_still {
            return;
        }
    }
    panic!("half a minute is not enough for a deployment");
}

#[test]
fn a_request_that_was_begun_before_is_answered_by_what_there_is_when_it_comes() {
    // Between the first looks; it grows, so that sixty are enough for half a minute.
    const LOOK: Duration = Duration::from_millis(20);
    let _watchdog = watchdog();
    let (node, directory) = start();
    let finish = |mut late: microfaas_node::Prepared| {
        late.buffer().copy_from_slice(b"abc");
        late.submit(3, &[], None).unwrap().wait()
    };
    for number in 2..8 {
        let mut begun: Vec<_> = (0..60).map(|_| node.prepare("version", 3, 0).unwrap()).collect();
        node.deploy(write(directory.path(), number, '-')).unwrap();
        let of = |number: u32| format!("{number:04} {number:04} abc {number:04}");
        // On the old version as long as a worker has that, and on the new one when it has gone.
        until("the end of the old version", || {
            std::thread::sleep(LOOK * u32::try_from(60 - begun.len()).unwrap());
            let answer = finish(begun.pop().expect("the old version goes"));
            let answer = String::from_utf8(answer.into_result().unwrap().body).unwrap();
            assert!(answer == of(number) || answer == of(number - 1), "{answer}");
            answer == of(number)
        });
    }
    let mut begun: Vec<_> = (0..60).map(|_| node.prepare("version", 3, 0).unwrap()).collect();
    node.remove("versions").unwrap();
    until("the end of the last version", || {
        std::thread::sleep(LOOK * u32::try_from(60 - begun.len()).unwrap());
        finish(begun.pop().expect("the last version goes")).status == Status::NotFound
    });
}

#[test]
fn a_worker_that_is_killed_in_the_middle_ends_with_the_right_version() {
    let _watchdog = watchdog();
    let (node, directory) = start();
    for round in 0..6u32 {
        let number = round + 2;
        let path = write(directory.path(), number, 'S');
        let victim = node.workers()[round as usize % 2].pid.unwrap();
        std::thread::scope(|scope| {
            let deploying = scope.spawn(|| node.deploy(path));
            std::thread::sleep(Duration::from_millis(u64::from(round) * 40));
            kill(victim);
            deploying.join().unwrap().unwrap();
        });
        until("a replacement", || pids(&node).len() == 2 && !pids(&node).contains(&victim));
        until("two workers that serve", || {
            node.workers().iter().all(|worker| worker.state == microfaas_node::WorkerState::Serving)
        });
        assert_serves(&node, number);
    }
}

#[test]
fn a_module_that_costs_workers_their_lives_is_refused() {
    let _watchdog = watchdog();
    let (node, directory) = start();
    let path = write(directory.path(), 2, 'S');
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Whoever loads it dies of it.
            while !done.load(Ordering::Relaxed) {
                pids(&node).into_iter().for_each(kill);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let result = node.deploy(path);
        done.store(true, Ordering::Relaxed);
        assert!(matches!(result, Err(DeployError::WorkersLost { .. } | DeployError::NoWorker)), "{result:?}");
    });
    until("a worker that serves", || node.invoke("version", b"".as_slice()).is_ok());
    assert_eq!(text(&node, "version", ""), "0001 0001  0001");
}

#[test]
fn hundreds_of_deployments_leave_nothing_behind() {
    let _watchdog = watchdog();
    let directory = tempfile::tempdir().unwrap();
    let node = node(&directory).workers(1).spares(0).start().unwrap();
    let deploy = |numbers: std::ops::Range<u32>| {
        for number in numbers {
            node.deploy(write(directory.path(), number, '-')).unwrap();
            assert_serves(&node, number);
        }
    };
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let pid = node.workers()[0].pid.unwrap();
    let resident = || -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let maps = || std::fs::read_to_string(format!("/proc/{pid}/maps")).map_or(0, |maps| maps.lines().count());
    deploy(2..40);
    let (files, bytes, ranges) = (descriptors(), resident(), maps());
    deploy(40..240);
    assert_eq!(node.workers()[0].pid, Some(pid), "no worker had to be replaced");
    // Images are 300 KiB and more.
    assert!(resident() < bytes + (2 << 20), "{bytes} bytes, then {}", resident());
    // An image has five ranges at least: those of a tenth of them are more than the worker's own heap moves by.
    assert!(maps() < ranges + 100, "{ranges} ranges, then {}", maps());
    until("closed descriptors", || descriptors() <= files);
}

#[test]
fn settings_hold_for_the_versions_that_come() {
    let _watchdog = watchdog();
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { quantum_ns: 100_000, budget_ns: 20_000_000, ..Limits::default() };
    let config = FunctionConfig::default().limits(limits).deadline(Duration::from_secs(7));
    let node = node(&directory).function("version_slow", config).start().unwrap();
    node.deploy(write(directory.path(), 2, '-')).unwrap();
    let described = node.describe("version_slow").unwrap();
    assert_eq!((described.limits, described.deadline_ns), (limits, Some(7_000_000_000)));
    assert_eq!(node.call("version_slow", b"500".as_slice()).status, Status::Timeout);
}

#[test]
fn a_reload_puts_all_in_place_or_nothing() {
    let _watchdog = watchdog();
    let (node, directory) = start();
    let reload = || Reload::default().modules(directory.path());
    assert_eq!(node.reload(reload()).unwrap().modules[0].outcome, Outcome::Unchanged);
    // Changed, and new beside it.
    write(directory.path(), 2, '-');
    std::fs::copy(probe(), directory.path().join("probe.so")).unwrap();
    let outcomes =
        |done: microfaas_node::Deployed| done.modules.iter().map(|of| of.outcome).collect::<Vec<_>>();
    assert_eq!(outcomes(node.reload(reload()).unwrap()), [Outcome::New, Outcome::Replaced]);
    assert_serves(&node, 2);
    assert_eq!(text(&node, "echo", "new"), "new");
    // Refused as a whole: settings of a function that is not there, one out of range, a module that does not load.
    write(directory.path(), 3, '-');
    let odd = reload().function("nothing", FunctionConfig::default());
    assert!(matches!(node.reload(odd), Err(DeployError::UnknownSettings { .. })));
    let odd = reload().function("version", FunctionConfig::default().deadline(Duration::ZERO));
    assert!(matches!(node.reload(odd), Err(DeployError::Range { .. })));
    write(directory.path(), 3, 'P');
    assert!(matches!(node.reload(reload()), Err(DeployError::LoadFailed { .. })));
    assert_serves(&node, 2);
    // Other settings of the same image, and a module that has gone.
    std::fs::remove_file(directory.path().join("probe.so")).unwrap();
    write(directory.path(), 2, '-');
    let config = FunctionConfig::default().deadline(Duration::from_secs(5));
    let done = node.reload(reload().function("version", config)).unwrap();
    assert_eq!(outcomes(done), [Outcome::Removed, Outcome::Replaced]);
    assert_eq!(node.describe("version").unwrap().deadline_ns, Some(5_000_000_000));
    assert_eq!(node.call("echo", b"".as_slice()).status, Status::NotFound);
    assert_serves(&node, 2);
}

#[test]
fn attached_hosts_get_what_is_deployed() {
    let _watchdog = watchdog();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let node = node(&directory).socket(&socket).start().unwrap();
    let host = Node::connect(&socket).unwrap();
    assert_serves(&host, 1);
    let handle = host.function("version").unwrap();
    for number in 2..12 {
        node.deploy(write(directory.path(), number, '-')).unwrap();
        // A host hears of it a moment later; what it has looked up before goes to the new version as soon as the old one is gone.
        until("the new version", || versions(&host) == expected(number));
        let answer = host.invoke(handle, b"x".as_slice()).unwrap();
        assert!(String::from_utf8(answer.body).unwrap().contains(" x "), "a handle stays good");
    }
    node.deploy(probe()).unwrap();
    until("the new function", || host.function("echo").is_ok());
    assert_eq!(text(&host, "echo", "new"), "new");
    node.remove("versions").unwrap();
    until("the end of the old one", || host.call(handle, b"".as_slice()).status == Status::NotFound);
    assert!(matches!(host.deploy(probe()), Err(DeployError::Attached)));
}
