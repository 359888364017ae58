//! SIGHUP to `serve`.

use std::fs;

use crate::deploying::{at, digest, put_probe, serve};
use crate::run::{Running, probe, run, until};

#[test]
fn a_hangup_reads_settings_and_modules_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut server = serve(dir);
    let first = digest(dir);
    let deadline = || at(dir, &["describe", "echo", "--json"]).ok().json()["deadline_ns"].clone();
    assert_eq!(deadline(), 30_000_000_000_u64);

    put_probe(&dir.join("modules"), 2);
    fs::write(dir.join("microfaas.toml"), "[function.echo]\ndeadline = \"7s\"\n").unwrap();
    server.signal("-HUP");
    until("the new module", || digest(dir) != first);
    assert_eq!(deadline(), 7_000_000_000_u64, "all of it at once");

    // Refused as a whole.
    let second = digest(dir);
    put_probe(&dir.join("modules"), 3);
    fs::write(dir.join("microfaas.toml"), "[function.nothing]\ndeadline = \"8s\"\n").unwrap();
    server.signal("-HUP");
    until("a reload that is refused", || server.log().contains("reload refused, all is as it was"));
    assert_eq!((digest(dir), deadline()), (second.clone(), 7_000_000_000_u64.into()));
    fs::write(dir.join("microfaas.toml"), "[function.echo]\ndeadline = \"9s\"\n").unwrap();
    server.signal("-HUP");
    until("the settings that are right again", || deadline() == 9_000_000_000_u64);
    assert_ne!(digest(dir), second);

    // What only a restart puts in force is said.
    let more = "[node]\nworkers = 2\ndeadline = \"11s\"\n[http]\naccess_log = false\n";
    fs::write(dir.join("microfaas.toml"), more).unwrap();
    server.signal("-HUP");
    until("the settings that a reload puts in force", || deadline() == 11_000_000_000_u64);
    until("what is said of the others", || server.log().contains("hold only after a restart"));
    let ended = server.end("-TERM");
    assert_eq!(ended.exit, Some(0));
    assert!(ended.err.contains("nothing"), "{}", ended.err);
    let said: Vec<_> = ended.err.lines().filter(|line| line.contains("hold only after a restart")).collect();
    assert!(said.len() == 1 && said[0].ends_with("keys=\"[node] workers, [http] access_log\""), "{said:?}");
}

/// What there is without the file is not what anybody has asked for: no limits, and nobody on the list.
#[test]
fn settings_that_are_gone_are_not_read_as_none() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("microfaas.toml"), "[function.echo]\ndeadline = \"7s\"\n").unwrap();
    let mut server = serve(dir);
    let deadline = || at(dir, &["describe", "echo", "--json"]).ok().json()["deadline_ns"].clone();
    fs::rename(dir.join("microfaas.toml"), dir.join("elsewhere")).unwrap();
    put_probe(&dir.join("modules"), 1);
    let first = digest(dir);
    server.signal("-HUP");
    until("a reload that is refused", || server.log().contains("reload refused"));
    assert_eq!((digest(dir), deadline()), (first.clone(), 7_000_000_000_u64.into()));
    fs::rename(dir.join("elsewhere"), dir.join("microfaas.toml")).unwrap();
    server.signal("-HUP");
    until("the reload", || digest(dir) != first);
    let ended = server.end("-TERM");
    let refused =
        ended.err.lines().filter(|line| line.contains("reload refused") && line.contains("microfaas.toml"));
    assert_eq!(refused.count(), 1, "{}", ended.err);
    assert_eq!(ended.exit, Some(0));
}

/// What the warning of a reload is that takes `[socket]` away.
const STAYS: &str = "the settings have no [socket] any more: the socket stays until a restart, and only the node's own user and root may attach";

#[test]
fn a_socket_that_is_in_the_settings_no_more_stays_and_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let settings = dir.join("microfaas.toml");
    let modules = format!("[node]\nmodules = [{:?}]\nworkers = 1\n", probe());
    let with = format!("{modules}[socket]\npath = \"s\"\nmode = \"0666\"\nusers = [65534]\n");
    let without = format!("{modules}deadline = \"7s\"\n");
    for (written, args, stays) in
        [(&with, &["serve"][..], true), (&modules, &["serve", "--socket", "s"], false)]
    {
        fs::write(&settings, written).unwrap();
        let (mut server, _) = Running::start(dir, args);
        fs::write(&settings, &without).unwrap();
        server.signal("-HUP");
        until("the reload", || {
            at(dir, &["describe", "echo", "--json"]).ok().json()["deadline_ns"] == 7_000_000_000_u64
        });
        run(dir, &["invoke", "--socket", "s", "echo"]).ok();
        if stays {
            until("the warning", || server.log().contains(STAYS));
        }
        let ended = server.end("-TERM");
        assert_eq!(ended.exit, Some(0), "{}", ended.err);
        let said: Vec<_> = ended.err.lines().filter(|line| line.contains(STAYS)).collect();
        assert_eq!(said.len(), usize::from(stays), "{}", ended.err);
        assert!(said.iter().all(|line| line.contains("WARN") && line.contains("socket=s")), "{said:?}");
        // Said once.
        assert!(!ended.err.contains("hold only after a restart"), "{}", ended.err);
    }
}
