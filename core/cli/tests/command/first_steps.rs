//! What a newcomer does: make, build, call.

use serde_json::json;

use crate::run::{probe, run, with_probe, with_probe_and_input};

#[test]
fn new_then_build_then_invoke() {
    let dir = tempfile::tempdir().unwrap();
    let made = run(dir.path(), &["new", "greeter"]).ok();
    assert!(made.text().contains("microfaas build greeter"), "{}", made.text());

    let target = concat!(env!("CARGO_TARGET_TMPDIR"), "/functions");
    let built = run(dir.path(), &["build", "greeter", "-o", "modules", "--dev", "--target-dir", target]).ok();
    assert_eq!(built.text(), "modules/greeter.so: hello\n");
    // Not a terminal: no spinner, no colour.
    assert!(!built.err.contains('\u{1b}'), "{}", built.err);

    // `modules` is where functions are looked for when nothing else is said.
    let called = run(dir.path(), &["invoke", "hello", "--data", "world"]).ok();
    assert!(called.text().contains("world"), "{}", called.text());
    assert_eq!(called.err, "");
}

#[test]
fn one_json_object() {
    let ended = with_probe(&["invoke", "echo", "--data", "hi \u{fc}", "--json"]).ok();
    assert_eq!(ended.text().lines().count(), 1);
    let object = ended.json();
    assert_eq!(object["function"], "echo");
    assert_eq!(object["status"], "OK");
    assert_eq!(object["worker"], 0);
    assert_eq!(object["detail"], "");
    assert_eq!(object["body_base64"], "aGkgw7w=");
    let ns = |key: &str| object[key].as_u64().unwrap();
    assert!(ns("cpu_ns") > 0 && ns("total_ns") >= ns("cpu_ns"), "{object}");
    assert_eq!(ended.err, "");
}

#[test]
fn the_body_comes_from_where_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let file = dir.path().join("input");
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(with_probe(&["invoke", "echo", "--data-file", file.to_str().unwrap()]).ok().out, bytes);
    assert_eq!(with_probe_and_input(&["invoke", "echo", "-"], &bytes).ok().out, bytes);
    assert_eq!(with_probe(&["invoke", "echo"]).ok().out, b"");
}

#[test]
fn metadata_there_and_back() {
    let args = ["invoke", "reverse_meta", "--meta", "a=1", "--meta", ":path=/x?y=z", "--json"];
    let object = with_probe(&args).ok().json();
    assert_eq!(object["meta"], json!([["meta-path", "/x?y=z"], ["meta-a", "1"]]));
}

#[test]
fn every_end_has_its_status() {
    for (args, status, detail) in [
        (&["nobody"][..], "NOT_FOUND", "no function is named `nobody`"),
        (&["panic", "--data", "the reason"], "PANIC", "the reason"),
        (&["fail", "--data", "no such key"], "ERROR", "no such key"),
    ] {
        let ended = with_probe(&[&["invoke", "--json"], args].concat());
        assert_eq!(ended.exit, Some(1), "{args:?}");
        let object = ended.json();
        assert_eq!(object["status"], status, "{args:?}");
        assert!(object["detail"].as_str().unwrap().contains(detail), "{object}");
        assert_eq!(ended.err, "");

        // For people, the same on one line.
        let ended = with_probe(&[&["invoke"], args].concat());
        assert_eq!((ended.exit, ended.text(), ended.err.lines().count()), (Some(1), "", 1));
        assert!(ended.err.starts_with(&format!("error: {}: {status}: ", args[0])), "{}", ended.err);
        assert!(ended.err.contains(detail), "{}", ended.err);
    }
}

#[test]
fn a_deadline_ends_the_wait() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("microfaas.toml"), "[function.sleep_spin]\nbudget = \"1h\"\n").unwrap();
    // Time enough for it to begin: what waits past its deadline is EXPIRED.
    let args = ["invoke", "sleep_spin", "--data", "3600000000", "--deadline", "3s", "--json", "--modules"];
    let ended = run(dir.path(), &[&args[..], &[probe().to_str().unwrap()]].concat());
    assert_eq!((ended.exit, &ended.json()["status"]), (Some(1), &json!("TIMEOUT")), "{}", ended.err);
}

#[test]
fn help_says_what_it_must() {
    let dir = tempfile::tempdir().unwrap();
    let help = run(dir.path(), &["--help"]).ok();
    for part in ["Exit status:", "Examples:", "serve", "invoke", "bench"] {
        assert!(help.text().contains(part), "{part} is not in\n{}", help.text());
    }
    let commands: Vec<&str> = {
        let list = help.text().split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0;
        list.lines()
            .filter_map(|line| line.strip_prefix("  ")?.split(' ').find(|word| !word.is_empty()))
            .collect()
    };
    assert!(commands.len() > 12 && commands.contains(&"lift-ban"), "{commands:?}");
    for command in commands.into_iter().filter(|command| *command != "help") {
        let long = run(dir.path(), &[command, "--help"]).ok();
        let usage = format!("Usage: microfaas {command}");
        assert!(long.text().contains(&usage) && long.err.is_empty(), "{}", long.text());
        assert_eq!(run(dir.path(), &["help", command]).ok().text(), long.text());
        let wrong = run(dir.path(), &[command, "--no-such-flag"]);
        assert_eq!((wrong.exit, wrong.text()), (Some(2), ""), "{command}");
        assert!(wrong.err.starts_with("error: ") && wrong.err.contains("--no-such-flag"), "{}", wrong.err);
        assert!(wrong.err.contains(&usage), "{}", wrong.err);
    }
    assert!(run(dir.path(), &["--version"]).ok().text().starts_with("microfaas 0."));
}
