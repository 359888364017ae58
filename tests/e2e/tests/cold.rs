//! Modules that are loaded when they are called, and unloaded when others need the room: callers notice nothing but the time.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::time::{Duration, Instant};

use microfaas_e2e::host::cpu_ns;
use microfaas_e2e::versions::{image, numbered, numbered_answer, numbered_name, pinned, put, write};
use microfaas_e2e::{Watchdog, probe, program};
use microfaas_node::{
    BanCause, CallError, DeployError, FunctionConfig, Limits, Loading, Node, NodeBuilder, Reload, Request,
    RestartCause, Status, Stocked, WorkerState,
};
use tempfile::TempDir;

fn watchdog() -> Watchdog {
    Watchdog::new(Duration::from_secs(300))
}

/// A node of one worker whose modules are loaded when they are called: `versions.so`, and modules with these numbers.
fn node(directory: &TempDir, numbers: std::ops::Range<u32>) -> NodeBuilder {
    write(directory.path(), 1, '-');
    for number in numbers {
        put(directory.path(), &file(number), &numbered(number));
    }
    Node::builder()
        .modules(directory.path())
        .worker_binary(program("microfaas-worker"))
        .workers(1)
        .pin(false)
        .load_default(Loading::FirstCall)
}

fn file(number: u32) -> String {
    format!("{}.so", numbered_name(number))
}

fn call(node: &Node, number: u32) {
    let answer = node.call(numbered_name(number).as_str(), b"".as_slice());
    assert_eq!(answer.status, Status::Ok, "{number}: {}", answer.detail);
    assert_eq!(answer.body, numbered_answer(number).as_bytes());
}

fn version(node: &Node) -> String {
    let answer = node.call("version", b"x".as_slice());
    assert_eq!(answer.status, Status::Ok, "{}", answer.detail);
    String::from_utf8(answer.body).unwrap()
}

fn of(number: u32) -> String {
    format!("{number:04} {number:04} x {number:04}")
}

fn stocked(node: &Node) -> Stocked {
    node.metrics().workers[0].stocked
}

/// Files of the modules that the one worker has loaded. The node hears of it at about the time of the answer to the call.
fn loaded(node: &Node) -> Vec<String> {
    let is_loaded = |module: &microfaas_node::ModuleInfo| module.loaded_in == 1;
    node.list().into_iter().filter(is_loaded).map(|module| module.name).collect()
}

fn files(numbers: &[u32]) -> Vec<String> {
    numbers.iter().map(|number| file(*number)).collect()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} did not come about");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn until_serves(node: &Node) {
    until("workers that serve", || node.workers().iter().all(|worker| worker.state == WorkerState::Serving));
}

fn kill(pid: u32) {
    // One that has gone since somebody looked is as good.
    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
}

#[test]
fn the_first_call_loads_the_module_once_however_many_come_with_it() {
    let _watchdog = watchdog();
    let directory = tempfile::tempdir().unwrap();
    let node = node(&directory, 0..3).workers(2).slots(128, 0).start().unwrap();
    assert_eq!((node.list().len(), loaded(&node)), (4, vec![]), "nothing is loaded before it is called");
    let calls: Vec<_> =
        (0..200).map(|_| node.submit("numbered_00000001", b"".as_slice().into()).unwrap()).collect();
    for call in calls {
        assert_eq!(call.wait().into_result().unwrap().body, b"version-00000001");
    }
    // One of the workers may be loading it still, though the other one has answered all calls.
    let (mut loads, mut module) = (cold_loads(&node), node.list().remove(1));
    until("a load", || {
        (loads, module) = (cold_loads(&node), node.list().remove(1));
        module.loaded_in > 0 && module.loaded_in as u64 == loads.iter().sum::<u64>()
    });
    assert!(loads.iter().all(|&loads| loads <= 1) && loads.contains(&1), "{loads:?}");
    assert_eq!(module.workers, 2);
    assert_eq!(module.load, Loading::FirstCall);
    assert!(node.metrics().workers.iter().any(|worker| worker.stocked.cold_load_ns > 0));
    call(&node, 1);
    call(&node, 0);
    assert_eq!(version(&node), of(1));
}

#[test]
fn the_least_recently_used_makes_room() {
    let _watchdog = watchdog();
    let directory = tempfile::tempdir().unwrap();
    let node = node(&directory, 0..5).modules_max(3).start().unwrap();
    (0..3).for_each(|number| call(&node, number));
    until("loads", || loaded(&node) == files(&[0, 1, 2]));
    // 1 is now the one that was not used for the longest.
    call(&node, 0);
    call(&node, 3);
    until("room", || loaded(&node) == files(&[0, 2, 3]));
    call(&node, 2);
    call(&node, 4);
    until("room", || loaded(&node) == files(&[2, 3, 4]));
    // What was unloaded is cold, not gone.
    call(&node, 1);
    until("room", || loaded(&node) == files(&[1, 2, 4]));
    until("counts", || (stocked(&node).cold_loads, stocked(&node).evictions) == (6, 3));
    // Round and round, with one more than there is room for: each call finds its module cold.
    for number in (0..5).cycle().take(100) {
        call(&node, number);
    }
    until("room", || stocked(&node).modules == 3);
    assert_eq!(node.stats().restarts, 0);
}

#[test]
fn the_limit_of_bytes_is_kept() {
    let _watchdog = watchdog();
    let directory = tempfile::tempdir().unwrap();
    let node_free = node(&directory, 0..4).start().unwrap();
    call(&node_free, 0);
    until("a load", || loaded(&node_free) == files(&[0]));
    let bytes = stocked(&node_free).bytes;
    // The image at least.
    assert!(bytes >= numbered(0).len() as u64 / 2, "{bytes}");
    drop(node_free);
    let room = 2 * bytes + bytes / 2;
    let node = node(&directory, 0..4).modules_bytes_max(room).start().unwrap();
    for number in [0, 1, 2, 3, 0, 1, 2, 3, 3, 2] {
        call(&node, number);
        until("room", || stocked(&node).bytes <= room);
    }
    until("room", || loaded(&node) == files(&[2, 3]));
    drop(node);
    // One that cannot fit: at the start, when it is called, and when it is deployed.
    let small = || self::node(&directory, 0..1).modules_bytes_max(bytes / 2);
    let error = small().load_default(Loading::Start).start().unwrap_err().to_string();
    assert!(error.contains("modules_bytes_max") && error.contains(&bytes.to_string()), "{error}");
    let node = small().start().unwrap();
    assert_eq!(node.call("numbered_00000000", b"".as_slice()).status, Status::LoadFailed);
    let other = tempfile::tempdir().unwrap();
    let error = node.deploy(put(other.path(), &file(7), &numbered(7))).unwrap_err().to_string();
    assert!(error.contains("modules_bytes_max") && error.contains(&(bytes / 2).to_string()), "{error}");
    assert_eq!(stocked(&node).modules, 0);
}

#[test]
fn what_has_calls_in_hand_is_not_unloaded() {
    let _watchdog = watchdog();
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { quantum_ns: 100_000, budget_ns: 60_000_000_000, ..Limits::default() };
    let config = FunctionConfig::default().limits(limits).deadline(Duration::from_secs(60));
    let node = node(&directory, 0..4).modules_max(1).function("version_slow", config).start().unwrap();
    let mut slow = node.submit("version_slow", b"3000".as_slice().into()).unwrap();
    until("its load", || loaded(&node) == ["versions.so"]);
    // It is suspended while each of these is loaded and makes room for the next.
    for number in [0, 1, 2, 3, 0] {
        call(&node, number);
        until("a load", || loaded(&node).contains(&file(number)));
        assert!(loaded(&node).contains(&"versions.so".to_owned()), "{:?}", loaded(&node));
    }
    assert!(slow.try_take().is_none(), "it runs still");
    assert_eq!(slow.wait().into_result().unwrap().body, b"0001 0001");
    until("the limit again", || stocked(&node).modules == 1);
    assert_eq!(version(&node), of(1));
    until("the limit again", || loaded(&node) == ["versions.so"]);
    assert_eq!(node.stats().restarts, 0);
}

#[test]
fn what_is_loaded_at_the_start_or_keeps_state_stays() {
    let _watchdog = watchdog();
    let directory = tempfile::tempdir().unwrap();
    let at_start = FunctionConfig::default().load(Loading::Start);
    let stateful = FunctionConfig::default().limits(Limits { stateful: true, ..Limits::default() });
    let node = node(&directory, 0..4)
        .modules_max(1)
        .function(numbered_name(0), at_start)
        .function(numbered_name(1), stateful)
        .start()
        .unwrap();
    assert_eq!(loaded(&node), files(&[0]));
    call(&node, 1);
    for number in [2, 3, 0, 2, 3] {
        call(&node, number);
    }
    until("room", || loaded(&node) == files(&[0, 1, 3]));
    // A new worker begins with what is loaded at the start, and nothing else.
    kill(node.workers()[0].pid.unwrap());
    until("another worker", || node.stats().restarts == 1);
    until_serves(&node);
    assert_eq!(loaded(&node), files(&[0]));
    call(&node, 1);
    call(&node, 3);
}

#[test]
fn modules_that_are_cold_come_and_go() {
    let _watchdog = watchdog();
    let directory = tempfile::tempdir().unwrap();
    let node = node(&directory, 0..2).workers(2).start().unwrap();
    // Replaced while it is cold, while it is warm, taken back, removed, brought back.
    node.deploy(write(directory.path(), 2, '-')).unwrap();
    assert_eq!(loaded_somewhere(&node), Vec::<String>::new());
    assert_eq!(version(&node), of(2));
    until("a load", || loaded_somewhere(&node) == ["versions.so"]);
    node.deploy(write(directory.path(), 3, '-')).unwrap();
    assert_eq!(loaded_somewhere(&node), ["versions.so"], "as warm as the version before");
    assert_eq!(version(&node), of(3));
    node.rollback("versions").unwrap();
    assert_eq!(version(&node), of(2));
    let handle = node.function("version").unwrap();
    node.remove("versions").unwrap();
    assert_eq!(node.invoke(handle, b"".as_slice()), Err(CallError::UnknownFunction));
    node.rollback("versions").unwrap();
    assert_eq!(version(&node), of(2));
    node.remove(&numbered_name(0)).unwrap();
    assert_eq!(node.call(numbered_name(0).as_str(), b"".as_slice()).status, Status::NotFound);
    call(&node, 1);
    // A broken one is refused, though nobody has called it.
    for letter in ['E', 'P', 'A'] {
        assert!(matches!(
            node.deploy(write(directory.path(), 4, letter)),
            Err(DeployError::LoadFailed { .. })
        ));
    }
    assert_eq!(version(&node), of(2));
    // When it is loaded is a setting as any other.
    write(directory.path(), 2, '-');
    node.reload(Reload::default().modules(directory.path())).unwrap();
    assert!(node.list().iter().all(|module| (module.loaded_in, module.load) == (2, Loading::Start)));
    node.reload(Reload::default().modules(directory.path()).load_default(Loading::FirstCall)).unwrap();
    assert!(node.list().iter().all(|module| module.load == Loading::FirstCall));
    (0..2).for_each(|number| call(&node, number));
    assert_eq!((version(&node), node.stats().restarts), (of(2), 0));
}

fn loaded_somewhere(node: &Node) -> Vec<String> {
    node.list().into_iter().filter(|module| module.loaded_in > 0).map(|module| module.name).collect()
}

#[test]
fn calls_that_wait_for_a_module_end_however_it_is_changed_meanwhile() {
    let _watchdog = watchdog();
    let directory = tempfile::tempdir().unwrap();
    let node = node(&directory, 0..1).modules_max(1).start().unwrap();
    for round in 0..30u32 {
        // Cold again.
        call(&node, 0);
        let calls: Vec<_> = (0..20).map(|_| node.submit("version", Request::new(b"x")).unwrap()).collect();
        let number = round + 2;
        match round % 3 {
            0 => drop(node.deploy(write(directory.path(), number, '-')).unwrap()),
            1 => {
                node.remove("versions").unwrap();
                node.deploy(write(directory.path(), number, '-')).unwrap();
            }
            _ => drop(node.rollback("versions").unwrap()),
        }
        for call in calls {
            let answer = call.wait().into_result().unwrap();
            let answer = String::from_utf8(answer.body).unwrap();
            assert_eq!(answer.len(), of(0).len(), "{answer}");
        }
        if round % 3 != 2 {
            assert_eq!(version(&node), of(number));
        }
    }
    assert_eq!(node.stats().restarts, 0);
}

#[test]
fn an_attached_host_calls_what_is_cold() {
    let _watchdog = watchdog();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let node = node(&directory, 0..6).modules_max(2).socket(&socket).start().unwrap();
    let host = Node::connect(&socket).unwrap();
    std::thread::scope(|scope| {
        for node in [&node, &host, &host] {
            scope.spawn(move || (0..6).cycle().take(120).for_each(|number| call(node, number)));
        }
    });
    // One that hangs up while its calls wait for a module takes nothing with it.
    node.deploy(write(directory.path(), 2, 'S')).unwrap();
    let calls: Vec<_> = (0..10).map(|_| host.submit("version", Request::new(b"x")).unwrap()).collect();
    drop((calls, host));
    assert_eq!(version(&node), of(2));
    assert_eq!(node.metrics().workers[0].restarts, [0; RestartCause::ALL.len()]);
}

/// `version_slow`, which is to run for this long.
fn slow(node: &Node, milliseconds: u32) -> microfaas_node::Call {
    node.submit("version_slow", milliseconds.to_string().as_bytes().into()).unwrap()
}

fn cold_loads(node: &Node) -> Vec<u64> {
    node.metrics().workers.iter().map(|worker| worker.stocked.cold_loads).collect()
}

/// A caller alone keeps to the first worker, but for what is loaded in the other one only.
#[test]
fn a_call_goes_to_where_its_module_is_loaded() {
    let _watchdog = watchdog();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let limits = Limits { budget_ns: 60_000_000_000, ..Limits::default() };
    let config = FunctionConfig::default().limits(limits).deadline(Duration::from_secs(60));
    let node =
        node(&directory, 0..2).workers(2).socket(&socket).function("version_slow", config).start().unwrap();
    let host = Node::connect(&socket).unwrap();
    for (number, caller) in [(0, &node), (1, &host)] {
        let mut busy = slow(caller, 2000);
        assert_eq!(busy.worker(), Some(0));
        call(caller, number);
        assert!(busy.try_take().is_none(), "the first worker is busy meanwhile");
        busy.wait().into_result().unwrap();
        until("a load", || node.list()[number as usize].loaded_in == 1);
        for _ in 0..20 {
            let answer = caller.call(numbered_name(number).as_str(), b"".as_slice());
            assert_eq!((answer.status, answer.worker), (Status::Ok, Some(1)), "{}", answer.detail);
        }
        assert_eq!(version(caller), of(1));
    }
    assert_eq!(cold_loads(&node), [1, 2], "each module in one worker");
    // A worker that is lost has nothing of it any more.
    kill(node.workers()[1].pid.unwrap());
    until("another worker", || node.stats().restarts == 1);
    until_serves(&node);
    assert_eq!(loaded(&node), ["versions.so"]);
    let answer = node.call(numbered_name(0).as_str(), b"".as_slice());
    assert_eq!((answer.status, answer.worker), (Status::Ok, Some(0)));
}

#[test]
fn a_module_whose_worker_is_busy_is_loaded_in_another_one() {
    let _watchdog = watchdog();
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { budget_ns: 60_000_000_000, ..Limits::default() };
    let config = FunctionConfig::default().limits(limits).deadline(Duration::from_secs(60));
    let node = node(&directory, 0..1).workers(2).function("version_slow", config).start().unwrap();
    assert_eq!(version(&node), of(1));
    until("a load", || cold_loads(&node) == [1, 0]);
    let calls: Vec<_> = (0..6).map(|_| slow(&node, 500)).collect();
    until("another load", || cold_loads(&node) == [1, 1]);
    let mut workers: Vec<u32> = Vec::new();
    for call in calls {
        let answer = call.wait();
        assert_eq!(answer.status, Status::Ok, "{}", answer.detail);
        workers.extend(answer.worker);
    }
    assert!(workers.contains(&0) && workers.contains(&1), "{workers:?}");
    assert_eq!((cold_loads(&node), node.stats().restarts), (vec![1, 1], 0));
}

#[test]
fn a_worker_that_is_killed_while_it_loads_loses_no_call() {
    let _watchdog = watchdog();
    let directory = tempfile::tempdir().unwrap();
    let node = node(&directory, 0..1).start().unwrap();
    for round in 0..4u32 {
        node.deploy(write(directory.path(), round + 2, 'S')).unwrap();
        call(&node, 0);
        kill(node.workers()[0].pid.unwrap());
        until("another worker", || node.stats().restarts == u64::from(2 * round) + 1);
        until_serves(&node);
        let calls: Vec<_> = (0..10).map(|_| node.submit("version", Request::new(b"x")).unwrap()).collect();
        // Its `init` takes 100 ms.
        std::thread::sleep(Duration::from_millis(u64::from(round) * 25));
        kill(node.workers()[0].pid.unwrap());
        for call in calls {
            let answer = call.wait().into_result().unwrap();
            assert_eq!(answer.body, of(round + 2).as_bytes(), "none had started");
        }
        until("another worker", || node.stats().restarts == u64::from(2 * round) + 2);
        until_serves(&node);
    }
}

#[test]
fn a_module_that_costs_workers_their_lives_is_banned() {
    let _watchdog = watchdog();
    let directory = tempfile::tempdir().unwrap();
    let builder = node(&directory, 0..1).restarts(100);
    // There from the start: nothing of it was ever run.
    write(directory.path(), 2, 'L');
    let node = builder.start().unwrap();
    let calls: Vec<_> = (0..4).map(|_| node.submit("version", Request::new(b"x")).unwrap()).collect();
    let is_banned = || node.bans().iter().any(|ban| ban.function == "version");
    // Whoever loads it dies of it: one that serves, and works though it has nothing that could be called.
    let mut seen = (0, 0);
    until("a ban", || {
        let worker = node.workers()[0];
        let serves = worker.state == WorkerState::Serving && stocked(&node).modules == 0;
        if let Some((pid, used_ns)) = worker.pid.filter(|_| serves).and_then(|pid| Some((pid, cpu_ns(pid)?)))
        {
            if seen.0 != pid {
                seen = (pid, used_ns);
            } else if used_ns - seen.1 > 20_000_000 {
                kill(pid);
            }
        }
        is_banned()
    });
    for call in calls {
        assert_eq!(call.wait().status, Status::Banned);
    }
    assert!(node.bans().iter().all(|ban| ban.cause == BanCause::MemorySafety));
    until_serves(&node);
    call(&node, 0);
    assert!(node.lift_ban("version").unwrap());
    assert_eq!(version(&node), of(2));
}

#[test]
fn what_cannot_be_loaded_is_said_and_tried_again() {
    let _watchdog = watchdog();
    for (letter, node) in
        ['E', 'P', 'A', 'F'].into_iter().map(|letter| (letter, tempfile::tempdir().unwrap()))
    {
        let (directory, other) = (node, tempfile::tempdir().unwrap());
        // There from the start: nothing of it was ever run.
        let builder = self::node(&directory, 0..1);
        write(directory.path(), 2, letter);
        let node = builder.start().unwrap();
        let start = Instant::now();
        let calls: Vec<_> = (0..8).map(|_| node.submit("version", Request::new(b"x")).unwrap()).collect();
        for call in calls {
            assert_eq!(call.wait().status, Status::LoadFailed, "{letter}");
        }
        assert_eq!(node.call("version", b"".as_slice()).status, Status::LoadFailed);
        call(&node, 0);
        until("a failure", || stocked(&node).cold_load_failures > 0);
        let failures = stocked(&node).cold_load_failures;
        assert!(failures == 1 || start.elapsed() > Duration::from_secs(1), "it rests for a second");
        until("another failure", || {
            assert_eq!(node.call("version", b"".as_slice()).status, Status::LoadFailed);
            stocked(&node).cold_load_failures > failures
        });
        node.deploy(write(other.path(), 3, '-')).unwrap();
        assert_eq!(version(&node), of(3));
        assert_eq!(node.stats().restarts, 0);
    }
}

#[test]
fn a_ban_holds_while_the_module_is_cold_and_after() {
    let _watchdog = watchdog();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    let banned_soon = FunctionConfig::default().ban_after(1);
    let builder = node(&directory, 0..1).modules_max(1).socket(&socket).module(probe());
    let node = builder.function("abort", banned_soon).start().unwrap();
    let host = Node::connect(&socket).unwrap();
    let abort = |node: &Node| node.call("abort", b"".as_slice()).status;
    assert_eq!(abort(&host), Status::Fault);
    until("a ban", || abort(&host) == Status::Banned);
    call(&node, 0);
    until("room", || loaded(&node) == files(&[0]));
    assert_eq!(abort(&host), Status::Banned);
    assert_eq!(loaded(&node), files(&[0]), "a banned call loads nothing");
    assert_eq!(host.invoke("echo", b"beside".as_slice()).unwrap().body, b"beside");
    assert_eq!((abort(&host), abort(&node)), (Status::Banned, Status::Banned));
    assert!(node.lift_ban("abort").unwrap());
    until("the end of the ban", || abort(&host) == Status::Fault);
    assert_eq!(node.stats().restarts, 0);
}

#[test]
fn a_call_expires_while_its_module_is_loaded() {
    let _watchdog = watchdog();
    let directory = tempfile::tempdir().unwrap();
    // Its `init` takes longer than a call may, and a worker may show nothing.
    let builder = node(&directory, 0..1).stall(Duration::from_secs(1));
    write(directory.path(), 2, 'L');
    let node = builder.start().unwrap();
    let handle = node.function("version").unwrap();
    let early = Request::new(b"x").deadline(Duration::from_millis(20));
    let calls: Vec<_> = (0..4).map(|_| node.submit(handle, early).unwrap()).collect();
    let late = node.submit(handle, Request::new(b"x")).unwrap();
    for call in calls {
        assert_eq!(call.wait().status, Status::Expired);
    }
    assert_eq!(late.wait().into_result().unwrap().body, of(2).as_bytes());
    assert_eq!(node.stats().restarts, 0, "it loads, it does not hang");
}

#[test]
fn a_worker_in_which_too_much_has_stayed_is_replaced() {
    const BALLAST: u64 = 60 << 20;
    let _watchdog = watchdog();
    let directory = tempfile::tempdir().unwrap();
    let builder = node(&directory, 0..6).modules_max(1);
    for number in 0..5 {
        put(directory.path(), &file(number), &pinned(numbered(number), BALLAST));
    }
    let node = builder.start().unwrap();
    let first = node.workers()[0].pid;
    // Four times 60 MiB may stay, and not a fifth time.
    for number in 0..5 {
        assert_eq!((node.stats().restarts, node.workers()[0].pid), (0, first));
        call(&node, number);
        until("a load", || loaded(&node).contains(&file(number)));
        assert!(stocked(&node).bytes > BALLAST);
    }
    call(&node, 5);
    until("another worker", || node.stats().restarts == 1);
    until_serves(&node);
    assert_ne!(node.workers()[0].pid, first);
    let causes = RestartCause::ALL.into_iter().zip(node.metrics().workers[0].restarts);
    assert_eq!(causes.filter(|(_, times)| *times > 0).collect::<Vec<_>>(), [(RestartCause::Stayed, 1)]);
    (0..3).for_each(|number| call(&node, number));
    // Deployments leave as much.
    for number in 2..8 {
        node.deploy(put(directory.path(), "versions.so", &pinned(image(number, '-'), BALLAST))).unwrap();
        assert_eq!(version(&node), of(number));
    }
    until("another worker", || node.stats().restarts == 2);
    until_serves(&node);
    assert_eq!(version(&node), of(7));
}

#[test]
fn what_stays_in_memory_is_not_unloaded_twice() {
    let _watchdog = watchdog();
    let directory = tempfile::tempdir().unwrap();
    let builder = node(&directory, 0..3).modules_max(1);
    put(directory.path(), &file(0), &pinned(numbered(0), 60 << 20));
    let node = builder.start().unwrap();
    for number in (0..3).cycle().take(60) {
        call(&node, number);
    }
    until("room", || loaded(&node) == files(&[0, 2]));
    assert_eq!(node.stats().restarts, 0);
}

#[test]
fn thousands_of_cold_modules_cost_a_worker_little() {
    const MODULES: u32 = 600;
    let _watchdog = watchdog();
    let directory = tempfile::tempdir().unwrap();
    let node = node(&directory, 0..MODULES).modules_max(20).start().unwrap();
    let step = 37;
    for number in (0..MODULES).map(|i| i * step % MODULES) {
        call(&node, number);
    }
    until("room", || stocked(&node).modules == 20);
    kill(node.workers()[0].pid.unwrap());
    until("another worker", || node.stats().restarts == 1);
    until_serves(&node);
    call(&node, 5);
    assert_eq!(node.list().len(), MODULES as usize + 1);
    until("a load", || loaded(&node) == files(&[5]));
}
