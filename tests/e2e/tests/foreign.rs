//! The worker is found from C and Python as it is from Rust: by the library that holds the node's code, whoever has loaded it.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use microfaas_e2e::{Watchdog, probe, program};

const LIMIT: Duration = Duration::from_secs(120);

const C: &str = r#"
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
    void *library = argc == 3 ? dlopen(argv[1], RTLD_NOW) : NULL;
    int (*echo)(const char *) = library ? (int (*)(const char *))dlsym(library, "foreign_echo") : NULL;
    if (echo == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 3;
    }
    return echo(argv[2]);
}
"#;

const PYTHON: &str =
    "import ctypes, sys; sys.exit(ctypes.CDLL(sys.argv[1]).foreign_echo(sys.argv[2].encode()))";

fn library() -> PathBuf {
    let programs = program("microfaas-worker");
    let library = programs.with_file_name("examples").join("libforeign.so");
    assert!(library.is_file(), "`{}` is not built", library.display());
    library
}

/// Runs a program of another language where nothing tells it of the worker: no environment, another folder.
fn check(program: &str, args: &[&str]) {
    let run = Command::new(program)
        .args(args)
        .arg(library())
        .arg(probe())
        .env_clear()
        .current_dir("/")
        .output()
        .unwrap();
    assert!(run.status.success(), "{program}: {:?}: {}", run.status, String::from_utf8_lossy(&run.stderr));
}

#[test]
fn from_c() {
    let _watchdog = Watchdog::new(LIMIT);
    let scratch = tempfile::tempdir().unwrap();
    let (source, built) = (scratch.path().join("main.c"), scratch.path().join("main"));
    std::fs::write(&source, C).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-Wall", "-Wextra", "-Werror", "-o"]).arg(&built).arg(&source).arg("-ldl");
    assert!(compiler.status().unwrap().success(), "the C program does not compile");
    check(built.to_str().unwrap(), &[]);
}

#[test]
fn from_python() {
    let _watchdog = Watchdog::new(LIMIT);
    let python = String::from_utf8(
        Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap().stdout,
    );
    check(python.unwrap().trim(), &["-c", PYTHON]);
}
