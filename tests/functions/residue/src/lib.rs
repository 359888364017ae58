//! Functions that leave something behind, or try to: in the C library, in the worker, in a response, in a memory that is kept from call to call.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::hint::black_box;
use std::os::unix::process::CommandExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::thread;

use microfaas::{Error, Request, Response, checkpoint};

/// What the standard library does with a thread of its own, a wait that is over at once, and a thread-local with a destructor. Always the same answer.
#[microfaas::function]
pub fn thread_handle(_: &[u8]) -> Result<String, Error> {
    thread_local!(static HELD: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) });
    let (send, receive) = mpsc::channel();
    send.send(7).map_err(Error::new)?;
    let received = receive.recv().map_err(Error::new)?;
    HELD.with_borrow_mut(|held| held.push(received));
    thread::current().unpark();
    thread::park();
    let held = HELD.with_borrow(Vec::len);
    Ok(format!("{:?} {held}", thread::current().id()))
}

/// Starts a process in a directory whose name is as long as the body says.
#[microfaas::function]
pub fn spawn_elsewhere(body: &[u8]) -> Result<String, Error> {
    let directory = "d".repeat(number(body)?);
    let child = Command::new("/nowhere").current_dir(directory).env("NAME", "value").spawn();
    Ok(format!("{child:?}"))
}

/// Becomes another program, with a variable in its environment.
#[microfaas::function]
pub fn become_another(body: &[u8]) -> String {
    let value = String::from_utf8_lossy(body).into_owned();
    Command::new("/nowhere").env("RESIDUE", value).exec().to_string()
}

/// What the environment has: nothing, whatever calls tried to leave there.
#[microfaas::function]
pub fn variables(_: &[u8]) -> String {
    format!("{:?} {:?}", std::env::vars_os().collect::<Vec<_>>(), std::env::var_os("RESIDUE"))
}

/// The system's words for the error whose number is the body.
#[microfaas::function]
pub fn os_error(body: &[u8]) -> Result<String, Error> {
    Ok(std::io::Error::from_raw_os_error(number(body)?).to_string())
}

/// Keeps a response that is written in place beyond its call, as the body says: `begin`, then `extend`, `read`, `give` or `drop`, which answer `mine` in place.
#[microfaas::function]
pub fn keep_response(body: &[u8]) -> Response {
    thread_local!(static KEPT: RefCell<Option<Response>> = const { RefCell::new(None) });
    let mut kept = KEPT.take();
    if body == b"begin" {
        let mut response = Response::in_place();
        response.extend_from_slice(b"of the first call");
        KEPT.set(Some(response));
        return Response::from_static(b"begun");
    }
    let mut response = Response::in_place();
    response.extend_from_slice(b"mine");
    match (body, &mut kept) {
        (b"extend", Some(kept)) => kept.extend_from_slice(b" and of another"),
        (b"resize", Some(kept)) => kept.resize(100_000),
        (b"read", Some(kept)) => response.extend_from_slice(&kept.body().to_vec()),
        (b"give", kept) => return kept.take().unwrap_or(response),
        (_, kept) => drop(kept.take()),
    }
    response
}

/// Keeps the bytes of a response that is written in place for ever, as nothing in their types forbids: `begin`, then `read` or `write`.
#[microfaas::function]
pub fn leak_response(body: &[u8]) -> Result<Vec<u8>, Error> {
    static LEAKED: Mutex<&'static mut [u8]> = Mutex::new(&mut []);
    let mut leaked = LEAKED.lock().map_err(|_| Error::new("a lock that another call has left"))?;
    match body {
        b"begin" => {
            let response = Box::leak(Box::new(Response::in_place()));
            response.resize(64);
            *leaked = response.body_mut();
        }
        b"write" => leaked.fill(b'x'),
        _ => return Ok(leaked.to_vec()),
    }
    Ok(Vec::new())
}

/// Answers with a header as long as the body says.
#[microfaas::function]
pub fn header(body: &[u8]) -> Result<Response, Error> {
    let value = "v".repeat(number(body)?);
    Ok(Response::new(value.clone()).with_header("x-long", &value))
}

/// Panics with a text as long as the body says.
#[microfaas::function]
pub fn throw_text(body: &[u8]) -> Result<Vec<u8>, Error> {
    let text = "t".repeat(number(body)?);
    panic!("{text}")
}

/// Panics with something that is no text and holds as many bytes as the body says; where that is odd, its destructor panics as well.
#[microfaas::function]
pub fn throw_value(body: &[u8]) -> Result<Vec<u8>, Error> {
    struct Value(Vec<u8>);
    impl Drop for Value {
        fn drop(&mut self) {
            assert!(self.0.len() % 2 == 0, "the destructor of an odd value");
        }
    }
    std::panic::panic_any(Value(vec![1; number(body)?]))
}

/// Catches a panic with a text, or throws something without one, as the body says: `catch` or `throw`.
#[microfaas::function]
pub fn caught(body: &[u8]) -> &'static str {
    if body == b"throw" {
        std::panic::resume_unwind(Box::new(7u8));
    }
    let caught = catch_unwind(|| panic!("{}", black_box("a text that was caught")));
    if caught.is_err() { "caught" } else { "" }
}

/// The error number as the call finds it; then it makes it another, by mathematics.
#[microfaas::function]
pub fn error_number(_: &[u8]) -> String {
    let found = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    black_box(black_box(-1.0f64).ln());
    black_box(black_box(1e300f64).powf(1e10));
    let made = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    format!("{found} {}", made != 0)
}

/// Takes and frees aligned buffers, not in the order in which they came, as many times as the body says. They are 64 KiB at a time, so memory that goes back is
/// used again.
#[microfaas::function]
pub fn aligned(body: &[u8]) -> Result<String, Error> {
    #[derive(Clone)]
    #[repr(align(64))]
    struct Line([u8; 64]);
    let rounds: usize = number(body)?;
    let mut kept: Vec<Vec<Line>> = Vec::new();
    for round in 0..rounds {
        let lines = vec![Line([round as u8; 64]); 1 + round % 32];
        if black_box(&lines).iter().any(|line| line.0[63] != round as u8 || line.0.as_ptr().addr() % 64 != 0)
        {
            return Err(Error::new("a line is not where it should be, or not as it was"));
        }
        kept.push(lines);
        if kept.len() == 32 {
            kept.swap_remove(round % 31);
        }
    }
    Ok(kept.len().to_string())
}

/// Asks for as many bytes as the body says, ready to be told that there are none.
#[microfaas::function]
pub fn try_reserve(body: &[u8]) -> Result<String, Error> {
    let mut bytes: Vec<u8> = Vec::new();
    Ok(bytes.try_reserve(number(body)?).map_or_else(|error| error.to_string(), |()| "there".to_owned()))
}

/// Works for ever; the body says which of the SDK's calls it makes. With a guard, whose drop asks for more memory than there is; or with `swallow ` before it without one, and
/// the end is caught and answered; or with `callback ` as C code would have it that calls back, through which nothing unwinds.
#[microfaas::function]
pub fn guarded(request: Request<'_>) -> Result<String, Error> {
    struct Guard;
    impl Drop for Guard {
        fn drop(&mut self) {
            drop(black_box(Vec::<u8>::with_capacity(1 << 40)));
        }
    }
    extern "C" fn call_back((request, kind): &(&Request<'_>, &[u8])) -> bool {
        work(request, kind).is_ok()
    }
    let kind = request.body();
    if let Some(kind) = kind.strip_prefix(b"swallow ") {
        let end = catch_unwind(AssertUnwindSafe(|| work(&request, kind)));
        return Ok(format!("caught: {}", end.is_err()));
    }
    if let Some(kind) = kind.strip_prefix(b"callback ") {
        return Ok(format!("returned: {}", call_back(&(&request, kind))));
    }
    let _guard = Guard;
    work(&request, kind)
}

fn work(request: &Request<'_>, kind: &[u8]) -> Result<String, Error> {
    let mut response = if kind == b"vec" { Response::new("") } else { Response::in_place() };
    loop {
        match kind {
            b"checkpoint" => checkpoint(),
            b"in_place" => drop(black_box(Response::in_place())),
            b"extend" | b"vec" => {
                response.extend_from_slice(b"");
            }
            b"resize" => response.resize(16),
            b"header" => drop(black_box(Response::from_static(b"").with_header("a", "b"))),
            b"time_left" => drop(black_box(request.time_left())),
            _ => return Err(Error::new("no such call")),
        }
    }
}

fn number<T: std::str::FromStr>(body: &[u8]) -> Result<T, Error> {
    let number = std::str::from_utf8(body).ok().and_then(|text| text.trim().parse().ok());
    number.ok_or_else(|| Error::new("the body is not a number").with_status(400))
}
