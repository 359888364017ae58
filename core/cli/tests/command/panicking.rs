//! `serve` where a bug makes one of its threads panic: what is logged, who gets an answer, and what goes on.
//!
//! There is no such bug to call on, so the test is a debugger: it stops the thread at the entry of a function of a debug build, and has it go to a panic instead.

use std::ffi::c_long;
use std::fs;
use std::io::Read;

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use object::{Object, ObjectSymbol, SymbolKind};
use serde_json::Value;

use crate::run::{Ended, Running, probe};
use crate::serving::{answer, call_get, send_surely};
use crate::stopping::Stopped;

const MESSAGE: &str = "the test wants it";
const BREAKPOINT: u8 = 0xcc;
/// Far below what the thread uses of its stack, and above its end.
const BELOW: u64 = 256 << 10;

/// The address in a running process of a function, by the last parts of its name as both ways of mangling write them.
fn address(pid: u32, name: &str) -> u64 {
    let program = env!("CARGO_BIN_EXE_microfaas");
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    // The kernel knows it by its own name, whatever links lead there.
    let whole = fs::canonicalize(program).unwrap();
    let base = maps.lines().find(|line| line.ends_with(whole.to_str().unwrap())).unwrap();
    let base = u64::from_str_radix(base.split_once('-').unwrap().0, 16).unwrap();
    let bytes = fs::read(program).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let is_it = |symbol: &object::Symbol<'_, '_>| {
        let rest = symbol.name().ok().and_then(|found| Some(found.split_once(name)?.1));
        symbol.kind() == SymbolKind::Text
            && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("17h"))
    };
    let found = file.symbols().find(is_it);
    base + found.unwrap_or_else(|| panic!("{program} has no function `{name}`")).address()
}

fn write(thread: Pid, at: u64, bytes: &[u8]) {
    for (index, word) in bytes.chunks(8).enumerate() {
        let mut whole = [0; 8];
        whole[..word.len()].copy_from_slice(word);
        let at = (at + 8 * index as u64) as ptrace::AddressType;
        ptrace::write(thread, at, c_long::from_ne_bytes(whole)).unwrap();
    }
}

/// Has the thread of this name panic where it enters this function next, which it does once `begin` was called at the latest.
fn panic_in<T>(pid: u32, thread: &str, function: &str, begin: impl FnOnce() -> T) -> T {
    let (function, panic) = (address(pid, function), address(pid, "4core9panicking5panic"));
    let stopped = Stopped::new(pid, thread);
    let code = ptrace::read(stopped.0, function as ptrace::AddressType).unwrap().to_ne_bytes();
    let mut trap = code;
    trap[0] = BREAKPOINT;
    write(stopped.0, function, &trap);
    ptrace::cont(stopped.0, None).unwrap();
    let begun = begin();
    loop {
        match waitpid(stopped.0, Some(WaitPidFlag::__WALL)).unwrap() {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => break,
            WaitStatus::Stopped(_, signal) => ptrace::cont(stopped.0, signal).unwrap(),
            WaitStatus::PtraceEvent(..) => ptrace::cont(stopped.0, None).unwrap(),
            other => panic!("{other:?}"),
        }
    }
    write(stopped.0, function, &code);
    let mut registers = ptrace::getregs(stopped.0).unwrap();
    assert_eq!(registers.rip, function + 1);
    // `panic(&'static str)`, with its caller's place behind the text: a file's name with a NUL at its end, a line, a column.
    let text = registers.rsp - BELOW;
    let (name, place) = (text + 128, text + 256);
    write(stopped.0, text, MESSAGE.as_bytes());
    write(stopped.0, name, b"test.rs\0");
    let words = [name.to_ne_bytes(), 8_u64.to_ne_bytes(), (1_u64 << 32 | 1).to_ne_bytes()];
    write(stopped.0, place, &words.concat());
    (registers.rdi, registers.rsi, registers.rdx) = (text, MESSAGE.len() as u64, place);
    registers.rip = panic;
    ptrace::setregs(stopped.0, registers).unwrap();
    begun
}

/// A node with a gateway, whose supervisor comes round often.
fn serve() -> (Running, std::net::SocketAddr) {
    let modules = probe();
    let args = ["serve", "--modules", modules.to_str().unwrap(), "--workers", "1", "--log", "json"];
    let args = [&args[..], &["--http", "127.0.0.1:0"]].concat();
    let (running, said) = Running::start_in(modules, &args, &[("WATCHDOG_USEC", "100000")]);
    let addr = said.iter().find_map(|line| line.strip_prefix("listening on http://")).unwrap();
    (running, addr.parse().unwrap())
}

/// The one line of the log that a panic is.
fn logged(ended: &Ended) -> Value {
    let lines = ended.err.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut panics = lines.filter(|line| line["target"] == "microfaas::panic");
    let panic = panics.next().unwrap_or_else(|| panic!("{}", ended.err));
    assert!(panics.next().is_none(), "{}", ended.err);
    assert_eq!((&panic["level"], &panic["message"]), (&"ERROR".into(), &format!("panic: {MESSAGE}").into()));
    assert!(panic["place"].as_str().unwrap().starts_with("test.rs"), "{panic}");
    // The standard library's own words are none of the log's.
    assert!(!ended.err.contains("panicked at"), "{}", ended.err);
    panic
}

#[test]
fn a_supervisor_that_panics_ends_the_node_and_every_call_is_answered() {
    if cfg!(not(debug_assertions)) {
        return;
    }
    let (mut server, addr) = serve();
    let running = send_surely(addr, "/fn/sleep_spin", "60000000");
    panic_in(server.id(), "microfaas-node", "10supervisor10Supervisor12wait_and_act", || ());
    let answer = answer(running);
    assert!(answer.starts_with("HTTP/1.1 50"), "{answer}");
    let ended = server.ended();
    assert_eq!(ended.exit, Some(1), "{}", ended.err);
    assert_eq!(logged(&ended)["thread"], "microfaas-node");
    assert!(ended.err.contains("the supervisor has panicked, the node is over"), "{}", ended.err);
    let last = ended.err.lines().last().unwrap();
    assert!(last.starts_with("error: the node has ended by itself, which is a bug"), "{last}");
}

#[test]
fn a_request_that_panics_costs_its_connection_alone() {
    if cfg!(not(debug_assertions)) {
        return;
    }
    let (mut server, addr) = serve();
    let mut running = send_surely(addr, "/fn/sleep_spin", "500000");
    let call = move || std::thread::spawn(move || call_get(addr, "/fn/echo"));
    let caller = panic_in(server.id(), "microfaas", "6routes6Routes4find", call);
    assert_eq!(caller.join().unwrap(), "");
    let mut head = [0; 12];
    running.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    assert!(call_get(addr, "/fn/echo").starts_with("HTTP/1.1 200 "));
    let ended = server.end("-TERM");
    assert_eq!(ended.exit, Some(0), "{}", ended.err);
    assert_eq!(logged(&ended)["thread"], "main");
}
