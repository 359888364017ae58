//! Modules that were made by hand: what the build tool would see to, the worker sees to.
//!
//! Needs the worker's program (`cargo build -p microfaas-worker`) and a C compiler by the name of `cc`, which links modules as well.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use microfaas_abi::ABI_VERSION;
use microfaas_e2e::{Watchdog, probe_node};
use microfaas_node::{Node, Request, Status};

const LIMIT: Duration = Duration::from_secs(300);

/// Compiles the module with these definitions of its macros: thread-locals, the function's entry, its answer.
fn compile(directory: &Path, name: &str, [thread_local, entry, work]: [&str; 3]) -> PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/crafted/module.c");
    let file = directory.join(name).with_extension("so");
    let status = Command::new("cc")
        .args(["-O1", "-fPIC", "-shared", "-nostartfiles", source, "-o"])
        .arg(&file)
        .args([
            format!("-DABI_VERSION={ABI_VERSION}"),
            format!("-DTHREAD_LOCAL={thread_local}"),
            format!("-DENTRY={entry}"),
            format!("-DWORK={work}"),
        ])
        .status()
        .expect("a C compiler");
    assert!(status.success(), "{name} does not compile");
    file
}

fn start() -> Node {
    probe_node().deadline_default(LIMIT).start().expect("a node")
}

fn assert_untouched(node: &Node) {
    let worker = node.workers()[0];
    assert_eq!((worker.generation, worker.restarts), (1, 0), "the worker was replaced");
    assert_eq!(node.call("echo", Request::new(b"next")).body, b"next");
}

/// Of either model: one that the loader is asked for at each use, as which it makes the block at the first, and one that it has to make when it loads the module.
#[test]
fn thread_locals_are_put_back_whoever_has_used_them_first() {
    let _watchdog = Watchdog::new(LIMIT);
    let (node, directory) = (start(), tempfile::tempdir().expect("a directory"));
    for model in ["global-dynamic", "initial-exec"] {
        let counter = format!("static __thread unsigned char count __attribute__((tls_model(\"{model}\")));");
        let file = compile(directory.path(), model, [&counter, "work", "++count"]);
        node.deploy(file).expect(model);
        for round in 0..5 {
            let answer = node.call("crafted", Request::new(b""));
            assert_eq!((answer.status, answer.body), (Status::Ok, vec![1]), "{model}, call {round}");
        }
        let _ = node.remove("crafted");
    }
    assert_untouched(&node);
}

#[test]
fn thread_locals_of_any_size_are_looked_at_before_they_are_made() {
    let _watchdog = Watchdog::new(LIMIT);
    let (node, directory) = (start(), tempfile::tempdir().expect("a directory"));
    let large = "static __thread unsigned char large[1 << 30];";
    let file = compile(directory.path(), "large", [large, "work", "++large[call->body_len]"]);
    let error = node.deploy(file).expect_err("a gibibyte of thread-locals");
    assert!(error.to_string().contains("writable bytes"), "{error}");
    // The loader finds room for them beside their bytes, and ends the process where there is none.
    let aligned = "static __thread unsigned char aligned __attribute__((aligned(1 << 26)));";
    let file = compile(directory.path(), "aligned", [aligned, "work", "++(&aligned)[call->body_len]"]);
    let error = node.deploy(file).expect_err("a byte at a multiple of 64 MiB");
    assert!(error.to_string().contains("writable bytes"), "{error}");
    assert_untouched(&node);
}

#[test]
fn a_function_without_an_entry_is_refused() {
    let _watchdog = Watchdog::new(LIMIT);
    let (node, directory) = (start(), tempfile::tempdir().expect("a directory"));
    let file = compile(directory.path(), "no-entry", ["", "NULL", "1"]);
    let error = node.deploy(file).expect_err("a function without an entry");
    assert!(error.to_string().contains("no function crafted"), "{error}");
    assert_untouched(&node);
}
