//! Wrong input: one line that says what and where, an exit status, and nothing half-started.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::run::{probe, run, run_with_input};

/// Runs it, and expects this exit status and, as the last and only line of its own, `error: …` with these parts.
#[track_caller]
fn refused(dir: &Path, args: &[&str], exit: i32, parts: &[&str]) {
    let ended = run(dir, args);
    assert_eq!(ended.exit, Some(exit), "{args:?}: {}", ended.err);
    assert_eq!(ended.text(), "", "{args:?}");
    let lines: Vec<_> = ended.err.lines().collect();
    assert_eq!(lines.len(), 1, "{args:?}: {}", ended.err);
    for part in [&["error: "], parts].concat() {
        assert!(lines[0].contains(part), "{part:?} is not in {:?}", lines[0]);
    }
}

#[test]
fn a_function_crate_with_unsafe() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &["new", "wild"]).ok();
    let root = dir.path().join("wild/src/lib.rs");
    let clean = fs::read_to_string(&root).unwrap();
    fs::write(&root, format!("{clean}\nfn wild() {{ unsafe {{ std::hint::unreachable_unchecked() }} }}\n"))
        .unwrap();
    refused(
        dir.path(),
        &["build", "wild", "-o", "out"],
        3,
        &["wild/src/lib.rs:", "`unsafe` in a function crate"],
    );
    fs::write(&root, clean.replace("#![forbid(unsafe_code)]", "")).unwrap();
    refused(dir.path(), &["build", "wild", "-o", "out"], 3, &["#![forbid(unsafe_code)]", "wild/src/lib.rs"]);
    assert!(!dir.path().join("out").exists());
}

#[test]
fn a_crate_that_is_there_already_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &["new", "one"]).ok();
    refused(dir.path(), &["new", "one"], 3, &["one exists"]);
    refused(dir.path(), &["new", "one/Cargo.toml"], 3, &["a crate cannot be named"]);
    refused(
        dir.path(),
        &["new", "one/.gitignore/two"],
        3,
        &["one/.gitignore/two: cannot look at: Not a directory"],
    );
    refused(dir.path(), &["new", "fn"], 3, &["a crate cannot be named", "no word of Rust"]);
    refused(dir.path(), &["build", "absent", "-o", "out"], 3, &["absent", "Cargo.toml"]);
}

#[test]
fn a_file_that_is_no_module() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("modules")).unwrap();
    fs::write(dir.path().join("modules/text.so"), "not a module").unwrap();
    for command in [&["invoke", "f"][..], &["serve", "--http", "127.0.0.1:0"]] {
        refused(dir.path(), command, 3, &["modules/text.so", "is not an ELF file"]);
    }
}

#[test]
fn a_module_of_another_abi_version() {
    let dir = tempfile::tempdir().unwrap();
    let mut module = fs::read(probe().join("probe.so")).unwrap();
    // The note of the manifest: its owner's name, then the version.
    let owner = b"microfaas\0\0\0";
    let at = module.windows(owner.len()).position(|w| w == owner).unwrap() + owner.len();
    module[at..at + 4].copy_from_slice(&99_u32.to_le_bytes());
    fs::write(dir.path().join("future.so"), module).unwrap();
    refused(dir.path(), &["invoke", "echo", "--modules", "."], 3, &["future.so", "99"]);
}

#[test]
fn a_duplicate_function_name() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.so", "b.so"] {
        fs::copy(probe().join("probe.so"), dir.path().join(name)).unwrap();
    }
    refused(dir.path(), &["invoke", "echo", "--modules", "."], 3, &["function `", "a.so", "b.so"]);
}

#[test]
fn a_missing_directory() {
    let dir = tempfile::tempdir().unwrap();
    refused(dir.path(), &["serve", "--modules", "nowhere"], 3, &["nowhere", "No such file or directory"]);
    refused(dir.path(), &["serve"], 3, &["no modules", "--modules DIR"]);
    fs::create_dir(dir.path().join("empty")).unwrap();
    refused(dir.path(), &["serve", "--modules", "empty"], 3, &["no functions", "empty"]);
}

#[test]
fn a_busy_port() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let modules = probe();
    let args = ["serve", "--modules", modules.to_str().unwrap(), "--http", &addr];
    refused(dir.path(), &args, 1, &["cannot listen on", &addr, "another process listens there", "--http"]);
}

#[test]
fn a_typo_in_the_settings() {
    let dir = tempfile::tempdir().unwrap();
    let typo = |text: &str, parts: &[&str]| {
        fs::write(dir.path().join("microfaas.toml"), text).unwrap();
        refused(dir.path(), &["serve"], 3, parts);
    };
    typo(
        "[node]\n\nwrokers = 2\n",
        &["microfaas.toml:3: unknown key `wrokers` in [node], did you mean `workers`?"],
    );
    typo("[node]\nworkers = 0\n", &["microfaas.toml:2: `workers` in [node] is 0, allowed are 1 to 1024"]);
    typo("[node\n", &["microfaas.toml:1: "]);
    let modules = probe();
    let modules = modules.display();
    typo(
        &format!("[node]\nmodules = [\"{modules}\"]\n[function.ecko]\nidempotent = true\n"),
        &["microfaas.toml:3: [function.ecko] is for a function that no module has, did you mean `echo`?"],
    );
    refused(dir.path(), &["serve", "-c", "other.toml"], 3, &["other.toml", "No such file or directory"]);
}

#[test]
fn a_wrong_command_line() {
    let dir = tempfile::tempdir().unwrap();
    for args in [
        &[][..],
        &["fly"],
        &["invoke"],
        &["invoke", "f", "--meta", "no-value"],
        &["invoke", "f", "--meta", "Upper=1"],
        &["invoke", "f", "--deadline", "soon"],
        &["serve", "--http", "8080"],
        &["serve", "--workers", "0"],
        &["bench", "nothing"],
    ] {
        let ended = run_with_input(dir.path(), args, b"");
        assert_eq!((ended.exit, ended.text()), (Some(2), ""), "{args:?}: {}", ended.err);
    }
    refused(
        dir.path(),
        &["invoke", "f", "--data-file", "absent"],
        3,
        &["absent", "No such file or directory"],
    );
}

#[test]
fn an_output_that_takes_nothing() {
    let microfaas = |args: &[&str], out: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_microfaas"));
        let ended =
            command.args(args).env("NO_COLOR", "1").stdin(Stdio::null()).stdout(out).output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
    };
    let modules = probe().to_str().unwrap();
    let invoke = ["invoke", "echo", "--modules", modules, "--data", "x"];
    for args in [&["doctor"][..], &["doctor", "--json"], &invoke] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (exit, err) = microfaas(args, full.into());
        assert_eq!(exit, Some(1), "{args:?}");
        assert!(err.starts_with("error: cannot write to the standard output: No space left"), "{err}");
    }
    // A reader that has seen enough is no error to be told of.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(microfaas(&invoke, writer.into()), (Some(1), String::new()));
}

#[test]
fn a_limit_of_file_sizes_that_shared_memory_is_beyond() {
    let invoke = ["invoke", "echo", "--modules", probe().to_str().unwrap(), "--data", "x"];
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -f 1 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_microfaas")]).args(invoke);
    let ended = command.env("NO_COLOR", "1").stdin(Stdio::null()).output().unwrap();
    let err = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(3), "{}: {err}", ended.status);
    assert!(err.starts_with("error: module") && err.contains("File too large"), "{err}");
}

#[test]
fn a_worker_of_another_build() {
    let dir = tempfile::tempdir().unwrap();
    let (script, worker) = (dir.path().join("worker"), Path::new(env!("CARGO_BIN_EXE_microfaas")));
    let worker = worker.with_file_name("microfaas-worker");
    fs::write(&script, format!("#!/bin/sh\nexec {} 0.0.9+other\n", worker.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_microfaas"));
    command.args(["invoke", "echo", "--modules", probe().to_str().unwrap()]).env("MICROFAAS_WORKER", &script);
    let ended = command.env("NO_COLOR", "1").stdin(Stdio::null()).output().unwrap();
    let err = String::from_utf8(ended.stderr).unwrap();
    let version = run(dir.path(), &["--version"]).ok();
    let build = version.text().trim().strip_prefix("microfaas ").unwrap();
    let expected = format!(
        "error: worker 0: the worker program `{}` is of build {build}, its node of build 0.0.9+other; install both of one build\n",
        worker.display()
    );
    assert_eq!((ended.status.code(), err), (Some(1), expected));
}

#[test]
fn a_worker_that_is_none() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_microfaas"));
    command
        .args(["invoke", "echo", "--modules", probe().to_str().unwrap()])
        .env("MICROFAAS_WORKER", "/bin/true");
    let ended = command.env("NO_COLOR", "1").stdin(Stdio::null()).output().unwrap();
    let err = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(err.starts_with("error: worker 0: ") && err.lines().count() == 1, "{err}");
    assert!(err.ends_with("or what MICROFAAS_WORKER names, of the same build?\n"), "{err}");
}
