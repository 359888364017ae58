//! `deploy`, `ls`, `describe`, `rollback`, `remove`, `lift-ban`.

use std::fs;
use std::path::Path;

use crate::run::{Ended, Running, probe, run, until};

/// The probe's module, longer by so many bytes that nobody reads: another image of the same functions.
pub(crate) fn put_probe(dir: &Path, more: usize) {
    let mut bytes = fs::read(probe().join("probe.so")).unwrap();
    bytes.extend(vec![0; more]);
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("half"), bytes).unwrap();
    fs::rename(dir.join("half"), dir.join("probe.so")).unwrap();
}

pub(crate) fn serve(dir: &Path) -> Running {
    put_probe(&dir.join("modules"), 0);
    Running::start(dir, &["serve", "--socket", "s", "--workers", "1"]).0
}

pub(crate) fn at(dir: &Path, args: &[&str]) -> Ended {
    run(dir, &[args, &["--socket", "s"]].concat())
}

pub(crate) fn digest(dir: &Path) -> String {
    let described = at(dir, &["describe", "echo", "--json"]).ok().json();
    described["module"]["digest"].as_str().unwrap().to_owned()
}

#[test]
fn modules_are_deployed_listed_rolled_back_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut server = serve(dir);
    let list = at(dir, &["ls"]).ok();
    assert!(list.text().starts_with("MODULE "), "{}", list.text());
    assert!(list.text().contains("probe.so") && list.text().contains(" echo "), "{}", list.text());
    let list = at(dir, &["ls", "--json"]).ok().json();
    assert_eq!(list["modules"][0]["name"], "probe.so");
    let first = digest(dir);

    put_probe(&dir.join("next"), 1);
    let done = at(dir, &["deploy", "next/probe.so"]).ok();
    let second = digest(dir);
    assert_ne!(first, second);
    assert!(done.text().starts_with("replaced  probe.so"), "{}", done.text());
    assert!(done.text().ends_with(&format!(", was {}\n", &first[..12])), "{}", done.text());
    assert!(at(dir, &["deploy", "next"]).ok().text().starts_with("unchanged probe.so"));
    assert_eq!(at(dir, &["invoke", "echo", "--data", "on"]).ok().text(), "on");
    let text = at(dir, &["describe", "echo"]).ok();
    assert!(text.text().contains(&format!("digest      {second}\n")), "{}", text.text());

    let done = at(dir, &["rollback", "probe", "--json"]).ok().json();
    assert_eq!(done["modules"][0]["outcome"], "replaced");
    assert_eq!(digest(dir), first);
    assert!(at(dir, &["remove", "probe.so"]).ok().text().starts_with("removed   probe.so"));
    let gone = at(dir, &["invoke", "echo"]);
    assert!(gone.exit == Some(1) && gone.err.contains("NOT_FOUND"), "{}", gone.err);
    assert!(at(dir, &["rollback", "probe"]).ok().text().starts_with("new       probe.so"));
    assert_eq!(server.end("-TERM").exit, Some(0));
}

/// As where modules are links to releases.
#[test]
fn a_module_has_the_name_of_its_link() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut server = serve(dir);
    put_probe(&dir.join("releases"), 1);
    fs::rename(dir.join("releases/probe.so"), dir.join("releases/probe-1.2.3.so")).unwrap();
    fs::remove_file(dir.join("modules/probe.so")).unwrap();
    std::os::unix::fs::symlink("../releases/probe-1.2.3.so", dir.join("modules/probe.so")).unwrap();
    let done = at(dir, &["deploy", "modules/probe.so"]).ok();
    assert!(done.text().starts_with("replaced  probe.so"), "{}", done.text());
    let done = at(dir, &["deploy", "modules"]).ok();
    assert!(done.text().starts_with("unchanged probe.so"), "{}", done.text());
    assert_eq!(server.end("-TERM").exit, Some(0));
}

#[test]
fn what_is_loaded_where_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(
        dir.join("microfaas.toml"),
        "[node]\nload = \"first-call\"\nmodules_max = 1\n[function.echo]\nconcurrency = 3\n",
    )
    .unwrap();
    let mut server = serve(dir);
    let loaded = || {
        let list = at(dir, &["ls"]).ok();
        let mut lines = list.text().lines().map(|line| line.split_whitespace().nth(4).unwrap().to_owned());
        (lines.next().unwrap(), lines.next().unwrap())
    };
    assert_eq!(loaded(), ("LOADED".to_owned(), "0/1".to_owned()));
    let described = at(dir, &["describe", "echo"]).ok();
    for line in
        ["concurrency 3 of each host\n", "load        first-call\n", "loaded      in 0 of 1 workers\n"]
    {
        assert!(described.text().contains(line), "{}", described.text());
    }
    assert_eq!(at(dir, &["invoke", "echo", "--data", "on"]).ok().text(), "on");
    until("a load", || loaded().1 == "1/1");
    let stats = at(dir, &["stats", "--json"]).ok().json();
    let modules = &stats["workers"][0]["modules"];
    assert_eq!((&modules["loaded"], &modules["cold_loads"]), (&1.into(), &1.into()));
    assert!(modules["bytes"].as_u64() > Some(0) && modules["cold_load_ns"].as_u64() > Some(0), "{modules}");
    // A reload puts the setting in force.
    fs::write(dir.join("microfaas.toml"), "[function.echo]\nload = \"start\"\n").unwrap();
    server.signal("-HUP");
    until("the reload", || at(dir, &["describe", "echo"]).text().contains("load        start\n"));
    until("a load", || loaded().1 == "1/1");
    assert_eq!(server.end("-TERM").exit, Some(0));
}

#[test]
fn what_cannot_be_done_is_said_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut server = serve(dir);
    let before = digest(dir);
    fs::write(dir.join("probe.so"), "no library").unwrap();
    let refused = |args: &[&str], exit: i32, expected: &str| {
        let ended = at(dir, args);
        assert_eq!(ended.exit, Some(exit), "{}", ended.err);
        assert!(ended.err.starts_with("error: ") && ended.err.contains(expected), "{}", ended.err);
        assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
    };
    refused(&["deploy", "probe.so"], 1, "refused, nothing was changed: module");
    refused(&["deploy", "nowhere.so"], 3, "nowhere.so: cannot read it");
    refused(&["rollback", "probe"], 1, "had no other image before");
    refused(&["remove", "echo"], 1, "remove the module");
    refused(&["remove", "nothing"], 1, "no module or function has the name `nothing`");
    refused(&["describe", "nothing"], 1, "error: no function has the name `nothing`; `microfaas ls` lists");
    refused(&["lift-ban", "nothing"], 1, "error: no function has the name `nothing`; `microfaas ls` lists");
    assert_eq!(digest(dir), before);
    let none = run(dir, &["ls"]);
    assert!(none.exit == Some(3) && none.err.contains("no socket"), "{}", none.err);
    fs::write(dir.join("microfaas.toml"), "[socket]\npath = \"s\"\n").unwrap();
    run(dir, &["ls"]).ok();
    assert_eq!(server.end("-TERM").exit, Some(0));
}

#[test]
fn a_ban_is_shown_and_lifted() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("microfaas.toml"), "[function.abort]\nban_after = 1\n").unwrap();
    let mut server = serve(dir);
    let abort = || at(dir, &["invoke", "abort", "--json"]).json()["status"].clone();
    assert_eq!(abort(), "FAULT");
    until("the ban", || abort() == "BANNED");
    assert!(at(dir, &["describe", "abort"]).ok().text().contains("banned      too many faults\n"));
    assert_eq!(at(dir, &["lift-ban", "abort"]).ok().text(), "abort may be called again\n");
    until("the end of the ban", || abort() == "FAULT");
    until("another ban", || abort() == "BANNED");
    assert_eq!(at(dir, &["lift-ban", "abort", "--json"]).ok().json()["lifted"], true);
    assert_eq!(at(dir, &["lift-ban", "echo"]).ok().text(), "echo was not banned\n");
    let unknown = at(dir, &["lift-ban", "nobody"]);
    assert!(unknown.exit == Some(1) && unknown.err.contains("nobody"), "{}", unknown.err);
    assert_eq!(server.end("-TERM").exit, Some(0));
}
