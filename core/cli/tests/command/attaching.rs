//! `serve --socket`, and `invoke` by it.

use std::fs;
use std::path::Path;

use crate::run::{Ended, Running, probe, run, run_with_input, with_probe};

fn serve(dir: &Path, args: &[&str]) -> (Running, Vec<String>) {
    let all = [&["serve", "--modules", probe().to_str().unwrap(), "--workers", "1"], args].concat();
    Running::start(dir, &all)
}

fn invoke(dir: &Path, args: &[&str]) -> Ended {
    run(dir, &[&["invoke", "--socket", "s"], args].concat())
}

#[test]
fn a_call_by_the_socket_is_like_one_without() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (mut server, said) = serve(dir, &["--socket", "s"]);
    assert!(said.contains(&"hosts attach at s".to_owned()), "{said:?}");
    assert!(!said.iter().any(|line| line.starts_with("listening")), "no address was given: {said:?}");

    let echo = run_with_input(dir, &["invoke", "--socket", "s", "echo", "-"], b"by the socket").ok();
    assert_eq!(echo.out, b"by the socket");
    for call in [&["fail", "--data", "short"][..], &["panic", "--data", "stout"], &["ecko"]] {
        let (with, without) = (invoke(dir, call), with_probe(&[&["invoke"], call].concat()));
        assert_eq!((with.exit, &with.out, &with.err), (without.exit, &without.out, &without.err), "{call:?}");
        assert_eq!(with.exit, Some(1));
    }
    let meta = ["reverse_meta", "--meta", "a=1", "--meta", "b=2", "--json"];
    let (mut with, mut without) =
        (invoke(dir, &meta).ok().json(), with_probe(&[&["invoke"], &meta[..]].concat()).ok().json());
    for report in [&mut with, &mut without] {
        for time in ["cpu_ns", "total_ns"] {
            assert!(report[time].take().as_u64().unwrap() > 0);
        }
    }
    assert_eq!(with, without);

    let ended = server.end("-TERM");
    assert_eq!(ended.exit, Some(0), "{}", ended.err);
    assert!(!dir.join("s").exists());
}

#[test]
fn what_is_wrong_with_a_socket_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let nobody = invoke(dir, &["echo"]);
    assert_eq!(nobody.exit, Some(1));
    assert_eq!(
        nobody.err,
        "error: no node listens at `s`: No such file or directory (os error 2); `microfaas serve --socket s` starts one\n"
    );
    assert_eq!(invoke(dir, &["echo", "--modules", "."]).exit, Some(2));

    fs::write(dir.join("microfaas.toml"), "[socket]\npath = \"s\"\n").unwrap();
    let (mut first, said) = serve(dir, &[]);
    assert!(said.iter().any(|line| line.starts_with("hosts attach at ")), "{said:?}");
    let modules = probe().to_str().unwrap();
    let busy = run(dir, &["serve", "--modules", modules, "--socket", "s"]);
    assert_eq!(busy.exit, Some(1));
    assert!(
        busy.err.ends_with("error: socket `s`: another node listens there; use another --socket PATH\n"),
        "{}",
        busy.err
    );
    invoke(dir, &["echo"]).ok();

    // It leaves its socket behind.
    first.end("-KILL");
    assert!(dir.join("s").exists());
    let gone = invoke(dir, &["echo"]);
    assert_eq!(
        (gone.exit, gone.err.contains("no node listens at `s`: Connection refused")),
        (Some(1), true),
        "{}",
        gone.err
    );
    let (mut second, _) = serve(dir, &[]);
    invoke(dir, &["echo"]).ok();
    assert_eq!(second.end("-INT").exit, Some(0));

    fs::write(dir.join("s"), "precious").unwrap();
    let taken = run(dir, &["serve", "--modules", modules, "--socket", "s"]);
    assert_eq!(taken.exit, Some(1));
    assert!(taken.err.contains("socket `s`: there is a file that is no socket"), "{}", taken.err);
    let no_socket = invoke(dir, &["echo"]);
    assert!(no_socket.err.ends_with("; that file is no socket\n"), "{}", no_socket.err);

    let long = "s".repeat(108);
    let hint = "; the path of a socket has at most 107 bytes, this one has 108\n";
    for args in [&["serve", "--modules", modules, "--socket", &long][..], &["ls", "--socket", &long]] {
        let ended = run(dir, args);
        assert!(ended.exit == Some(1) && ended.err.ends_with(hint), "{}", ended.err);
    }
    let nowhere = run(dir, &["serve", "--modules", modules, "--socket", "nowhere/s"]);
    assert!(nowhere.err.ends_with("; the directory that it is to be in must be there\n"), "{}", nowhere.err);
}
