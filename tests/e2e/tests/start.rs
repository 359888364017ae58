//! What is wrong before a node is up is one line that says what and where, and leaves nothing behind.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use microfaas_e2e::{Watchdog, hostile_node, hostile_worker, module};
use microfaas_node::{FunctionConfig, Node, NodeBuilder};

fn refused(builder: NodeBuilder) -> String {
    let _watchdog = Watchdog::new(Duration::from_secs(150));
    let text = builder.start().expect_err("this must not start").to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

fn builder() -> NodeBuilder {
    Node::builder().worker_binary(hostile_worker()).workers(1)
}

#[test]
fn modules_that_are_not_there_or_none() {
    assert!(refused(builder()).starts_with("no functions: neither"));
    let absent = refused(builder().modules("/nonexistent/modules"));
    assert!(absent.starts_with("module directory `/nonexistent/modules`: "), "{absent}");
    let empty = tempfile::tempdir().unwrap();
    assert!(refused(builder().modules(empty.path())).starts_with("no functions: no *.so in `"));
    fs::write(empty.path().join("text.so"), "not a module").unwrap();
    let text = refused(builder().modules(empty.path()));
    assert!(text.ends_with("text.so`: is not an ELF file"), "{text}");
}

#[test]
fn functions_that_are_there_twice_or_not_at_all() {
    let directory = module();
    fs::copy(directory.path().join("fake.so"), directory.path().join("other.so")).unwrap();
    let text = refused(builder().modules(directory.path()));
    assert!(text.contains("function `echo` is in both `"), "{text}");
    assert!(text.contains("fake.so") && text.contains("other.so"), "{text}");
    let directory = module();
    let text = refused(builder().modules(directory.path()).function("nope", FunctionConfig::default()));
    assert_eq!(text, "settings for function `nope`, which no module has");
    // The same file twice is no contradiction.
    let file = directory.path().join("fake.so");
    assert!(builder().modules(directory.path()).module(file).start().is_ok());
}

#[test]
fn settings_outside_their_range() {
    let directory = module();
    let builder = || builder().modules(directory.path());
    assert_eq!(refused(builder().workers(0)), "workers is 0, allowed are 1 to 1024");
    assert_eq!(refused(builder().stack_bytes(1)), "stack_bytes is 1, allowed are 65536 to 1073741824");
    assert!(refused(builder().slots(0, 0)).starts_with("lane geometry: slots"));
    let zero = FunctionConfig::default().deadline(Duration::ZERO);
    assert!(refused(builder().function("echo", zero)).starts_with("deadline (ns) is 0"));
}

#[test]
fn workers_that_do_not_come_up() {
    let directory = module();
    let missing = Node::builder().modules(directory.path()).worker_binary("/nonexistent/worker");
    assert_eq!(refused(missing), "worker program not found, looked for `/nonexistent/worker`");
    let no_program = builder().modules(directory.path()).worker_binary(directory.path().join("fake.so"));
    assert!(refused(no_program).starts_with("worker 0: cannot start `"));
    for (behaviour, expected) in [
        ("die", "worker 0: ended with exit code 7 before it was ready"),
        ("fatal", "worker 0: no luck"),
        ("babble", "worker 0: answered start with a packet that does not belong there"),
        ("skip", "worker 0: answered start with a packet that does not belong there"),
    ] {
        assert_eq!(refused(hostile_node(behaviour).0.workers(2)).replace("worker 1", "worker 0"), expected);
    }
    let (builder, _directory) = hostile_node("refuse");
    let text = refused(builder);
    assert!(
        text.starts_with("worker 0: cannot load module `") && text.ends_with("fake.so`: no such luck"),
        "{text}"
    );
}

/// The supervisor takes the second failure for what it is, though the first has ended everything.
#[test]
fn workers_that_fail_together_are_one_error() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().name() == Some("microfaas-node") {
            PANICS.fetch_add(1, Ordering::Relaxed);
        }
        usual(info);
    }));
    for behaviour in ["die", "refuse", "fatal"] {
        for _ in 0..5 {
            let (builder, _directory) = hostile_node(behaviour);
            let _ = refused(builder.workers(8));
        }
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0, "the supervisor panicked");
}
