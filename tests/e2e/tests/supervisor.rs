//! What the supervisor does with processes that are ending, stuck or of no use, while others serve.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use microfaas_e2e::versions::write;
use microfaas_e2e::{Watchdog, hostile_node, program};
use microfaas_node::{DeployError, FunctionConfig, Node, Outcome, Reload, Status};

fn watchdog() -> Watchdog {
    Watchdog::new(Duration::from_secs(300))
}

#[test]
fn a_deployment_ends_whose_trial_closes_its_socket_and_stays() {
    let _watchdog = watchdog();
    let (builder, directory) = hostile_node("mute-trial");
    let node = builder.start().unwrap();
    let file = directory.path().join("fake.so");
    let mut other = std::fs::read(&file).unwrap();
    other.push(0);
    std::fs::write(&file, other).unwrap();
    let error = node.deploy(&file).unwrap_err();
    assert!(matches!(error, DeployError::LoadFailed { .. }), "{error}");
    assert!(error.to_string().contains("control socket: unexpected end of file"), "{error}");
    let answer = node.call("echo", b"still here".as_slice());
    assert_eq!((answer.status, answer.body), (Status::Ok, b"still here".to_vec()));
}

/// A worker's program that leaves a line in a file each time that it is started.
fn counted_worker(folder: &Path) -> (PathBuf, impl Fn() -> usize) {
    let (script, count) = (folder.join("worker"), folder.join("started"));
    let worker = program("microfaas-worker");
    let text = format!("#!/bin/sh\necho >> {}\nexec {} \"$@\"\n", count.display(), worker.display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    (script, move || std::fs::read_to_string(&count).unwrap().lines().count())
}

#[test]
fn settings_alone_are_not_tried_out() {
    let _watchdog = watchdog();
    let (modules, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(modules.path(), 1, '-');
    let (worker, started) = counted_worker(folder.path());
    let node = Node::builder().modules(modules.path()).worker_binary(worker).workers(2).pin(false).spares(0);
    let node = node.start().unwrap();
    assert_eq!(started(), 2);
    let reload = |concurrency| {
        let config = FunctionConfig::default().concurrency(concurrency);
        node.reload(Reload::default().modules(modules.path()).function("version", config)).unwrap()
    };
    for concurrency in 1..4 {
        assert_eq!(reload(concurrency).modules[0].outcome, Outcome::Replaced);
        let functions = node.functions();
        assert_eq!(functions.iter().find(|f| f.name == "version").unwrap().concurrency, concurrency);
        assert_eq!(node.call("version", b"x".as_slice()).body, b"0001 0001 x 0001");
    }
    assert_eq!(started(), 2, "nothing was tried out");
    // Another image is.
    write(modules.path(), 2, '-');
    reload(4);
    assert_eq!((started(), node.stats().restarts), (3, 0));
    assert_eq!(node.call("version", b"x".as_slice()).body, b"0002 0002 x 0002");
}
