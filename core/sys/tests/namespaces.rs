//! Namespaces that several processes are in.
#![expect(unsafe_code, reason = "forks")]

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use microfaas_sys::namespaces::{Namespace, Shared};
use microfaas_sys::privileges;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, getpid};

/// The names of this process's namespaces, which tell them apart.
fn own() -> Vec<String> {
    let of = |kind: &str| fs::read_link(format!("/proc/{}/ns/{kind}", getpid())).expect("it is in one");
    ["net", "ipc", "uts", "cgroup", "mnt"].map(|kind| of(kind).to_string_lossy().into_owned()).to_vec()
}

/// A number that says what is wrong where something is.
fn join(all: &[BorrowedFd<'_>], outside: &Path) -> i32 {
    if Shared::join(all).is_err() {
        return 1;
    }
    let entries = |folder: &str| fs::read_dir(folder).map_or(0, Iterator::count);
    if entries("/") + entries(".") + entries("..") > 0 || outside.exists() {
        return 2;
    }
    if fs::write("/file", "").is_ok() || fs::create_dir("/folder").is_ok() {
        return 3;
    }
    // It has an address of its own only, and no way anywhere.
    match std::net::UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.connect("192.0.2.1:9")) {
        Ok(()) => 4,
        Err(_) => 0,
    }
}

#[test]
fn processes_join_an_empty_world() {
    let user = !privileges::is_root();
    let before = own();
    let shared = match Shared::make(user, Duration::from_secs(600)) {
        Ok(shared) => shared,
        // As in a container that forbids it.
        Err(error) => return eprintln!("not tested: {error}"),
    };
    assert_eq!(own(), before, "who makes them stays outside");
    let all: Vec<BorrowedFd<'_>> = shared.descriptors().collect();
    let names = |fd: &BorrowedFd<'_>| {
        use std::os::fd::AsRawFd;
        fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).expect("it is open")
    };
    let made: Vec<_> = all.iter().map(names).collect();
    for (made, outside) in made.iter().rev().zip(before.iter().rev()) {
        assert_ne!(made.to_string_lossy(), *outside);
    }
    let program = std::env::current_exe().expect("it has a path");
    for _ in 0..2 {
        // SAFETY: the child looks at files and ends. What it allocates, the C library allows after a fork.
        match unsafe { fork() }.expect("there may be one process more") {
            // SAFETY: nothing of this process is the child's to clean up.
            ForkResult::Child => unsafe { libc::_exit(join(&all, &program)) },
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
            }
        }
    }
}

#[test]
fn what_is_none_is_not_joined() {
    let file = fs::File::open("/dev/null").expect("it is there");
    let fds = [std::os::fd::AsFd::as_fd(&file); 7];
    for count in [0, 1, 4, 5, 6, 7] {
        assert!(Shared::join(&fds[..count]).is_err(), "{count}");
    }
    assert_eq!(Namespace::last(6), Some(&Namespace::ALL[..]));
    assert_eq!(Namespace::last(5).and_then(|kinds| kinds.first()), Some(&Namespace::Net));
    assert!([0, 4, 7].into_iter().all(|count| Namespace::last(count).is_none()));
}
