//! The sandbox from outside: a real node with a real worker, and functions that try to get out.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use microfaas_build::{BuildOptions, build};
use microfaas_control::BUDGET_NS_MAX;
use microfaas_e2e::Watchdog;
use microfaas_node::{
    Completion, FunctionConfig, Layer, LayerState, Limits, Node, NodeBuilder, SandboxPolicy, Status,
};
use microfaas_sandbox::rules::{EVENTS, RECEIVED, RULES, Rule, User, Value};

/// What each function of `tests/functions/outlaw` must be denied, by the name of the first system call that it cannot do without.
const DENIED: &[(&str, &[&str])] = &[
    ("read_file", &["openat"]),
    ("write_memory", &["openat"]),
    ("create_file", &["openat"]),
    ("stat_file", &["statx", "newfstatat"]),
    ("list_directory", &["openat"]),
    ("delete_file", &["unlink", "unlinkat"]),
    ("tcp_connect", &["socket"]),
    ("tcp_listen", &["socket"]),
    ("udp", &["socket"]),
    ("socket_pair", &["socketpair"]),
    ("unix_listen", &["socket"]),
    ("resolve", &["socket"]),
    (
        "spawn",
        &["mmap", "openat", "pipe2", "socketpair", "rt_sigprocmask", "fcntl", "prctl", "vfork", "clone3"],
    ),
    ("exec", &["rt_sigaction", "rt_sigprocmask", "execve"]),
    ("thread", &["rt_sigaction", "mmap", "rt_sigprocmask", "clone3", "openat", "sched_getaffinity"]),
    ("exit", &["exit_group"]),
    ("sleep", &["clock_nanosleep", "nanosleep"]),
    ("deadlock", &["futex"]),
    ("read_input", &["read"]),
    ("write_output", &["write", "writev"]),
    ("write_error", &["write", "writev"]),
    ("change_directory", &["chdir"]),
    ("canonical", &["openat"]),
    ("home", &["getuid", "openat"]),
];

/// Names a folder with the modules, for a user that cannot build them.
const MODULES: &str = "MICROFAAS_TEST_MODULES";

/// The modules of hasty, outlaw and probe, built once for all tests here.
fn modules() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        if let Some(built) = std::env::var_os(MODULES) {
            return built.into();
        }
        let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let functions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../functions");
        let out = temporary.join("sandbox-modules");
        let crates = ["hasty", "outlaw", "probe"].map(|name| functions.join(name));
        let mut options = BuildOptions::new(crates, &out);
        options.target_dir = Some(temporary.join("sandbox-target"));
        let built = build(&options, &mut |_| {});
        built.unwrap_or_else(|error| panic!("{error}\n{}", error.cargo_output().unwrap_or_default()));
        out
    })
}

fn node() -> NodeBuilder {
    Node::builder()
        .module(modules().join("outlaw.so"))
        .module(modules().join("probe.so"))
        .workers(1)
        .pin(false)
}

/// What came of a call: the answer's text, or the detail.
fn text(completion: &Completion) -> String {
    if completion.status == Status::Ok {
        String::from_utf8_lossy(&completion.body).into_owned()
    } else {
        completion.detail.clone().into_owned()
    }
}

fn call(node: &Node, function: &str, body: &[u8]) -> Completion {
    match node.submit(function, body.into()) {
        Ok(call) => call.wait(),
        Err(error) => Completion::refused(&error),
    }
}

fn pid(node: &Node) -> u32 {
    node.workers()[0].pid.expect("the worker runs")
}

/// A number of KiB from the process's status.
fn kib(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The worker answers, and its state is what it was.
fn assert_serves(node: &Node) {
    let answer = call(node, "echo", b"still here");
    assert_eq!(
        (answer.status, &answer.body[..]),
        (Status::Ok, b"still here".as_slice()),
        "{}",
        text(&answer)
    );
}

#[test]
fn what_is_forbidden_is_denied_by_name_and_the_worker_serves_on() {
    let _watchdog = Watchdog::new(Duration::from_secs(900));
    let node = node().start().unwrap();
    let first = pid(&node);
    let mut resident = Vec::new();
    for round in 0..20 {
        for (function, calls) in DENIED {
            let answer = call(&node, function, b"");
            let detail = text(&answer);
            assert_eq!(answer.status, Status::Denied, "{function}: {detail}");
            let name = detail.strip_prefix("forbidden system call ").and_then(|rest| rest.split(' ').next());
            let name = name.unwrap_or_else(|| panic!("{function}: {detail}"));
            assert!(calls.contains(&name), "{function}: {name} is none of {calls:?}");
            assert_serves(&node);
            assert_eq!(pid(&node), first, "{function} cost a worker in round {round}");
        }
        resident.push(kib(first, "VmRSS"));
    }
    assert!(resident[19] < resident[4] + 512, "KiB after each round: {resident:?}");
    if let Ok(open) = std::fs::read_dir(format!("/proc/{first}/fd")) {
        assert_eq!(open.count(), 5, "three times nothing, the control socket, the eventfd");
    }
    assert!(!Path::new("/tmp/microfaas-outlaw").exists());
}

#[test]
fn the_environment_is_empty_and_stays_so() {
    let _watchdog = Watchdog::new(Duration::from_secs(900));
    let node = node().start().unwrap();
    let first = pid(&node);
    for _ in 0..3 {
        let answer = call(&node, "set_variable", b"");
        assert_eq!(answer.status, Status::Panic, "{}", text(&answer));
        assert!(text(&answer).contains("failed to set environment variable"), "{}", text(&answer));
        assert_eq!(text(&call(&node, "environment", b"")), "lawful []");
    }
    assert_eq!(pid(&node), first);
}

#[test]
fn the_first_code_of_a_module_is_sealed_in() {
    let _watchdog = Watchdog::new(Duration::from_secs(900));
    let error = Node::builder().module(modules().join("hasty.so")).workers(1).pin(false).start().unwrap_err();
    let text = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ");
    assert!(text.contains("init of hasty: forbidden system call openat (SIGSYS)"), "{text}");
}

#[test]
fn what_is_allowed_works() {
    let _watchdog = Watchdog::new(Duration::from_secs(900));
    let node = node().start().unwrap();
    for function in ["hash_map", "clocks", "much_heap"] {
        for _ in 0..3 {
            let answer = call(&node, function, b"");
            assert_eq!(answer.status, Status::Ok, "{function}: {}", text(&answer));
            assert!(text(&answer).starts_with("lawful"), "{function}: {}", text(&answer));
        }
    }
    let answer = call(&node, "abort", b"");
    assert_eq!((answer.status, text(&answer).as_str()), (Status::Fault, "abort (SIGABRT)"));
    assert_serves(&node);
}

#[test]
fn the_node_knows_what_its_workers_are_sealed_in_by() {
    let _watchdog = Watchdog::new(Duration::from_secs(900));
    let node = node().start().unwrap();
    let report = node.sandbox(0).unwrap();
    for layer in
        [Layer::NoNewPrivileges, Layer::Descriptors, Layer::DeathSignal, Layer::SystemCalls, Layer::Limits]
    {
        assert!(report.is_active(layer), "{report}");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid(&node))).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.map(|line| line[name.len() + 1..].split_whitespace().collect::<Vec<_>>()).unwrap_or_default()
    };
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), (vec!["1"], vec!["2"]));
    assert_eq!(field("Threads"), ["1"]);
    assert!(field("Uid").iter().all(|uid| *uid != "0"), "{status}");
    for set in ["CapInh", "CapPrm", "CapEff"] {
        assert_eq!(u64::from_str_radix(field(set)[0], 16).unwrap(), 0, "{status}");
    }
    // Those that every kernel grants that knows them.
    if microfaas_sys::landlock::abi_version().is_ok() {
        assert!(report.is_active(Layer::Landlock), "{report}");
    }
    // Every layer is there, in force or with the reason why not.
    for entry in &report.entries {
        let (LayerState::Refused(reason) | LayerState::NotAsked(reason)) = &entry.state else { continue };
        assert!(!reason.is_empty(), "{report}");
    }
    assert_eq!(report.entries.len(), 18, "{report}");
}

/// Rules whose use depends on how full the C library's heap is, and how large its blocks; on who was first at what is done once; and on a worker that aborts.
const UNSEEN: &[(&str, User)] = &[
    ("brk", User::Worker),
    ("mremap", User::Worker),
    ("futex", User::Function),
    ("rt_sigprocmask", User::Worker),
];

/// What tells rules of the same call apart, as `strace` prints it: the advice, or the first two digits of a descriptor.
fn particular(rule: &Rule) -> &'static str {
    let is =
        |number: i32| rule.when.iter().any(|when| when.value == Value::Is(number.cast_unsigned().into()));
    let all = [
        (libc::MADV_DONTNEED, "MADV_DONTNEED"),
        (libc::MADV_POPULATE_READ, "MADV_POPULATE_READ"),
        (libc::MADV_POPULATE_WRITE, "MADV_POPULATE_WRITE"),
        (EVENTS, "close(12"),
        (RECEIVED, "close("),
    ];
    // An advice is an argument, a descriptor the first one.
    let found = all
        .into_iter()
        .find(|(number, text)| text.starts_with("close") == (rule.call == "close") && is(*number));
    found.map_or("", |(_, text)| text)
}

/// What a worker asks the kernel for under load, as `strace` sees it, uses every line of the list.
#[test]
fn every_rule_is_used() {
    let _watchdog = Watchdog::new(Duration::from_secs(900));
    let folder = tempfile::tempdir().unwrap();
    let (script, trace) = (folder.path().join("worker"), folder.path().join("trace"));
    let test = std::env::current_exe().unwrap();
    let worker = test.ancestors().nth(2).unwrap().join("microfaas-worker");
    let path = std::env::var_os("PATH").unwrap();
    let strace = std::env::split_paths(&path).map(|folder| folder.join("strace")).find(|file| file.is_file());
    let strace = strace.expect("strace is installed, see tests/ci/00-install.sh");
    // -D: the tracer is the grandchild, so that the worker's parent is the node.
    let line = format!("exec {} -D -o {} {} \"$@\"", strace.display(), trace.display(), worker.display());
    std::fs::write(&script, format!("#!/bin/sh\n{line}\n")).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let socket = folder.path().join("socket");
    let node = node().worker_binary(&script).socket(&socket).spares(0).start().unwrap();
    // A host that comes and goes.
    let host = Node::connect(&socket).unwrap();
    assert_serves(&host);
    host.shutdown(Duration::ZERO);
    for (function, body) in [
        ("echo", "hello"),
        ("hash_map", ""),
        ("much_heap", ""),
        ("panic", "x"),
        ("abort", ""),
        ("sleep_spin", "100000"),
    ] {
        call(&node, function, body.as_bytes());
    }
    // An event loop that waits at its descriptor, from before there is anything to wait for.
    let mut is_armed = node.arm();
    assert!(is_armed, "there is nothing to do");
    let mut started = node.submit("sleep_spin", b"20000".as_slice().into()).unwrap();
    let completion = loop {
        if is_armed {
            microfaas_sys::poll::is_readable(node.event_fd(), Some(Duration::from_secs(60))).unwrap();
        }
        node.disarm();
        node.poll();
        if let Some(completion) = started.try_take() {
            break completion;
        }
        is_armed = node.arm();
    };
    assert_eq!(completion.status, Status::Ok);
    // The bell is heard in its sleep.
    let stat = format!("/proc/{}/stat", pid(&node));
    while !std::fs::read_to_string(&stat).unwrap().contains(") S ") {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_serves(&node);
    drop(node);
    let text = std::fs::read_to_string(&trace).unwrap();
    let sealed =
        text.split_once("SECCOMP_SET_MODE_FILTER, 0, {len").expect("the worker has sealed itself in").1;
    for rule in RULES.iter().filter(|rule| !UNSEEN.contains(&(rule.call, rule.user))) {
        let used = sealed.lines().any(|line| {
            line.starts_with(&format!("{}(", rule.call))
                && match (rule.call, rule.user) {
                    ("mmap", User::Loader) => line.contains("PROT_EXEC"),
                    // Two rules: by descriptor, and without one.
                    ("mmap", _) => {
                        let has_descriptor = rule.when.iter().any(|when| when.argument == 4);
                        !line.contains("PROT_EXEC") && line.contains("MAP_ANONYMOUS") != has_descriptor
                    }
                    ("futex", user) => line.contains("FUTEX_WAKE_PRIVATE") == (user == User::Function),
                    ("madvise" | "close", _) => line.contains(particular(rule)),
                    _ => true,
                }
        });
        assert!(used, "nobody used {} ({})\n{sealed}", rule.call, rule.reason);
    }
}

/// This test program, to be run by `nobody`, in a folder that `nobody` can read.
fn as_nobody() -> (Command, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let copy = |from: &Path| {
        let to = folder.path().join(from.file_name().unwrap());
        std::fs::copy(from, &to).unwrap();
        to
    };
    let test = std::env::current_exe().unwrap();
    copy(&test.ancestors().nth(2).unwrap().join("microfaas-worker"));
    for module in std::fs::read_dir(modules()).unwrap() {
        copy(&module.unwrap().path());
    }
    let mut command = Command::new(copy(&test));
    command.env(MODULES, folder.path()).current_dir("/").uid(65_534).gid(65_534);
    (command, folder)
}

/// A node in a process of its own, for [`a_worker_dies_with_its_node`].
#[test]
#[ignore = "is started by another test, which kills it"]
fn node_that_is_killed() {
    let _watchdog = Watchdog::new(Duration::from_secs(900));
    let hour = Duration::from_secs(3600);
    let limits = Limits { budget_ns: BUDGET_NS_MAX, ..Limits::default() };
    let config = FunctionConfig::default().limits(limits).deadline(hour);
    let node = node().function("spin_forever", config).start().unwrap();
    let _running = node.submit("spin_forever", b"".as_slice().into()).unwrap();
    eprintln!("worker {}", pid(&node));
    loop {
        std::thread::park();
    }
}

/// They cost a worker nothing when it starts, and the kernel nothing when it ends. Whose processes they are, only root may see.
#[test]
fn workers_share_namespaces_that_the_system_is_not_in() {
    let _watchdog = Watchdog::new(Duration::from_secs(600));
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let node = node().workers(2).start().unwrap();
    let of = |pid: u32| {
        ["net", "ipc", "uts", "cgroup", "mnt"]
            .map(|kind| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap())
    };
    let workers: Vec<_> = node.workers().iter().map(|worker| of(worker.pid.unwrap())).collect();
    let refused = node.sandbox(0).unwrap().refused().count();
    if refused == 0 {
        assert_eq!(workers[0], workers[1]);
        assert!(workers[0].iter().zip(of(std::process::id())).all(|(inside, outside)| *inside != outside));
    }
    let root = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/root")).unwrap().count();
    assert!(node.workers().iter().all(|worker| root(worker.pid.unwrap()) == 0));
}

/// A change of user, and a user namespace, undo the death signal: it is armed after both. The worker is busy, and could not notice otherwise.
#[test]
fn a_worker_dies_with_its_node() {
    let _watchdog = Watchdog::new(Duration::from_secs(900));
    let mut own = Command::new(std::env::current_exe().unwrap());
    own.env(MODULES, modules());
    let mut commands = vec![(own, None)];
    if nix::unistd::geteuid().is_root() {
        let (nobody, folder) = as_nobody();
        commands.push((nobody, Some(folder)));
    }
    for (mut command, _folder) in commands {
        command.args(["--ignored", "--exact", "node_that_is_killed", "--nocapture"]).stderr(Stdio::piped());
        let mut node = command.stdout(Stdio::null()).spawn().unwrap();
        let mut said = BufReader::new(node.stderr.take().unwrap()).lines();
        let worker = said.find_map(|line| line.unwrap().strip_prefix("worker ").map(str::to_owned)).unwrap();
        node.kill().unwrap();
        node.wait().unwrap();
        // Gone, or waiting for whoever adopted it.
        let status = format!("/proc/{worker}/status");
        while std::fs::read_to_string(&status).is_ok_and(|text| !text.contains("State:\tZ")) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// All of it again, from a node of `nobody`.
#[test]
fn an_ordinary_user_is_protected_as_well() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let _watchdog = Watchdog::new(Duration::from_secs(900));
    let (mut nobody, _folder) = as_nobody();
    let output = nobody.args(["--test-threads=1", "what_is", "the_node_knows"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("3 passed"), "{text}");
}

/// As in `unshare -r`, whose root is nobody else outside, also where there may be no further namespace of users.
#[test]
fn an_ordinary_user_is_protected_where_the_name_is_root() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let _watchdog = Watchdog::new(Duration::from_secs(900));
    let (nobody, folder) = as_nobody();
    let called_root = |program: &OsStr| {
        let mut command = Command::new("unshare");
        command.arg("--map-root-user").arg(program).current_dir("/").uid(65_534).gid(65_534);
        command
    };
    if !called_root("true".as_ref()).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no `unshare`, or it is refused");
        return;
    }
    for first in ["", "echo 0 >/proc/sys/user/max_user_namespaces; "] {
        let script = format!("{first}exec \"$0\" --test-threads=1 what_is");
        let mut command = called_root("/bin/sh".as_ref());
        command.env(MODULES, folder.path()).args(["-c", &script]).arg(nobody.get_program());
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("2 passed"), "{first}: {text}");
    }
}

#[test]
fn without_a_sandbox_it_says_so() {
    let _watchdog = Watchdog::new(Duration::from_secs(900));
    let node = node().sandbox(SandboxPolicy::OFF).start().unwrap();
    assert!(node.sandbox(0).unwrap().entries.is_empty());
    let answer = call(&node, "read_file", b"");
    assert_eq!((answer.status, text(&answer).as_str()), (Status::Ok, "escaped: read"));
}
