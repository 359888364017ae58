//! Functions for end-to-end tests: each does one thing whose effect a test can see from outside.
//!
//! Bodies that are numbers are decimal text.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use microfaas::{Error, Request, Response, checkpoint};

/// The body back, written in place.
#[microfaas::function]
pub fn echo(body: &[u8]) -> Response {
    let mut response = Response::in_place();
    response.extend_from_slice(body);
    response
}

/// The body back, from a `Vec`.
#[microfaas::function]
pub fn echo_vec(body: &[u8]) -> Vec<u8> {
    body.to_vec()
}

/// The request's metadata in reverse order, as headers `meta-NAME`, without the colon of pseudo-headers.
#[microfaas::function]
pub fn reverse_meta(request: Request<'_>) -> Result<Response, microfaas::MessageError> {
    let pairs: Vec<_> = request.metas().collect();
    pairs.iter().rev().try_fold(Response::from_static(b""), |response, (name, value)| {
        response.try_with_header(&format!("meta-{}", name.trim_start_matches(':')), value)
    })
}

/// As many bytes as the body says; byte `i` is `i % 251`.
#[microfaas::function]
pub fn big(body: &[u8]) -> Result<Response, Error> {
    let mut response = Response::in_place();
    response.resize(number(body)?);
    for (byte, value) in response.body_mut().iter_mut().zip((0..251u8).cycle()) {
        *byte = value;
    }
    Ok(response)
}

/// Fails with the body as its message, and the HTTP status 418.
#[microfaas::function]
pub fn fail(body: &[u8]) -> Result<Vec<u8>, Error> {
    Err(Error::new(String::from_utf8_lossy(body)).with_status(418))
}

/// Fails with an error type of its own, after having written half an answer in place.
#[microfaas::function]
pub fn fail_late(body: &[u8]) -> Result<Response, std::num::ParseIntError> {
    let mut response = Response::in_place();
    response.extend_from_slice(b"half an answer");
    "not a number".parse::<u32>()?;
    response.extend_from_slice(body);
    Ok(response)
}

/// Panics with the body as its message.
#[microfaas::function]
pub fn panic(body: &[u8]) -> Vec<u8> {
    panic!("{}", String::from_utf8_lossy(body))
}

/// Keeps the core busy for as many microseconds as the body says; says how many it took.
#[microfaas::function]
pub fn sleep_spin(body: &[u8]) -> Result<String, Error> {
    let start = Instant::now();
    let end = Duration::from_micros(number(body)?);
    while start.elapsed() < end {
        std::hint::spin_loop();
    }
    Ok(start.elapsed().as_micros().to_string())
}

/// As `sleep_spin`; says whether an earlier attempt may have run, and only the first takes its time.
#[microfaas::function]
pub fn retried(request: Request<'_>) -> Result<String, Error> {
    if !request.is_retry() {
        sleep_spin(request.body())?;
    }
    Ok(request.is_retry().to_string())
}

/// As `sleep_spin`, with a checkpoint in its loop.
#[microfaas::function]
pub fn checkpoint_spin(body: &[u8]) -> Result<String, Error> {
    let start = Instant::now();
    let end = Duration::from_micros(number(body)?);
    while start.elapsed() < end {
        checkpoint();
    }
    Ok(start.elapsed().as_micros().to_string())
}

/// Looks at its body and at its response for a fifth of a second; says whether both stayed as they were.
#[microfaas::function]
pub fn steady(body: &[u8]) -> Response {
    let mut response = Response::in_place();
    response.extend_from_slice(body);
    let (start, seen) = (Instant::now(), fnv1a(body));
    let mut is_steady = true;
    while start.elapsed() < Duration::from_millis(200) {
        is_steady &= fnv1a(black_box(body)) == seen && fnv1a(black_box(response.body())) == seen;
    }
    response.resize(0);
    response.extend_from_slice(if is_steady { b"steady" } else { b"changed" });
    response
}

/// Works for as many rounds as the body says, some nanoseconds each; says when it was done, in nanoseconds of the system's clock.
#[microfaas::function]
pub fn work_a(body: &[u8]) -> Result<String, Error> {
    work(body)
}

/// As `work_a`.
#[microfaas::function]
pub fn work_b(body: &[u8]) -> Result<String, Error> {
    work(body)
}

/// As `work_a`.
#[microfaas::function]
pub fn work_c(body: &[u8]) -> Result<String, Error> {
    work(body)
}

fn work(body: &[u8]) -> Result<String, Error> {
    let rounds = number::<u64>(body)?;
    black_box((0..rounds).fold(1u64, |sum, round| black_box(sum.rotate_left(5) ^ round)));
    let time =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(|_| Error::new("before 1970"))?;
    Ok(time.as_nanos().to_string())
}

/// Never returns, and has no safe point.
#[microfaas::function]
pub fn spin_forever(_: &[u8]) -> Vec<u8> {
    let mut n = 0u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

/// Takes as many bytes as the body says, in blocks of up to 4 KiB, touches and frees them; says how many blocks there were.
#[microfaas::function]
pub fn alloc(body: &[u8]) -> Result<String, Error> {
    let total: usize = number(body)?;
    let blocks: Vec<Vec<u8>> = (0..total).step_by(4096).map(|at| vec![1; (total - at).min(4096)]).collect();
    Ok(black_box(blocks).len().to_string())
}

/// Says how many blocks of 1 KiB earlier calls left in a static, this one included. Always 1: statics are reset.
#[microfaas::function]
pub fn hoard(_: &[u8]) -> Result<String, Error> {
    static HOARD: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
    // Never unlocked: the next call finds it open all the same.
    let mut hoard = std::mem::ManuallyDrop::new(HOARD.try_lock().map_err(|_| Error::new("still locked"))?);
    hoard.push(vec![7; 1024]);
    Ok(hoard.len().to_string())
}

/// As `hoard`, in a thread-local with a destructor, which never runs in a module.
#[microfaas::function]
pub fn hoard_local(_: &[u8]) -> String {
    thread_local!(static HOARD: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) });
    HOARD.with_borrow_mut(|hoard| {
        hoard.push(vec![7; 1024]);
        hoard.len().to_string()
    })
}

/// `STATIC THREAD_LOCAL`: how often each was counted up, this time included. Always `1 1`.
#[microfaas::function]
pub fn counter(_: &[u8]) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    thread_local!(static LOCAL: Cell<u64> = const { Cell::new(0) });
    let count = COUNT.fetch_add(1, Ordering::Relaxed) + 1;
    let local = LOCAL.with(|local| {
        local.set(local.get() + 1);
        local.get()
    });
    format!("{count} {local}")
}

/// What `init_state` is given by its `init`.
#[derive(Debug)]
pub struct Built {
    /// How often `init` had run when this was built.
    pub times: u64,
    /// Something on the heap.
    pub words: Vec<String>,
}

/// The `init` of `init_state`.
pub fn build_state() -> Result<Built, std::convert::Infallible> {
    static TIMES: AtomicU64 = AtomicU64::new(0);
    let words = (0..100).map(|i| format!("word {i}")).collect();
    Ok(Built { times: TIMES.fetch_add(1, Ordering::Relaxed) + 1, words })
}

/// `TIMES WORD`: how often `init` ran (always 1), and the last word of its table.
#[microfaas::function(init = build_state)]
pub fn init_state(built: &Built, _: &[u8]) -> Result<String, Error> {
    let last = built.words.last().ok_or_else(|| Error::new("no words"))?;
    Ok(format!("{} {last}", built.times))
}

/// Allocates for ever.
#[microfaas::function]
pub fn oom(_: &[u8]) -> Vec<u8> {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        kept.push(black_box(vec![1; 64 * 1024]));
    }
}

/// Recurses until the stack is used up.
#[microfaas::function]
pub fn overflow(body: &[u8]) -> String {
    fn down(n: u64, body: &[u8]) -> u64 {
        let frame = black_box([n; 64]);
        if body.len() == usize::MAX { n } else { down(n + 1, body) + frame[1] }
    }
    down(0, body).to_string()
}

/// Aborts the process, or tries to.
#[microfaas::function]
pub fn abort(_: &[u8]) -> Vec<u8> {
    std::process::abort()
}

/// The FNV-1a hash of the body, 8 bytes little-endian, then the body.
#[microfaas::function]
pub fn checksum(body: &[u8]) -> Response {
    let mut response = Response::in_place();
    response.extend_from_slice(&fnv1a(body).to_le_bytes());
    response.extend_from_slice(body);
    response
}

/// FNV-1a, 64 bits.
#[must_use]
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Milliseconds until the deadline, or `none`.
#[microfaas::function]
pub fn time_left(request: Request<'_>) -> String {
    request.time_left().map_or_else(|| "none".to_owned(), |left| left.as_millis().to_string())
}

fn number<T: std::str::FromStr>(body: &[u8]) -> Result<T, Error> {
    let text = std::str::from_utf8(body).ok().map(str::trim);
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::new("the body is not a number").with_status(400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_known_bytes() {
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(&checksum(b"a").body()[8..], b"a");
    }

    #[test]
    fn big_is_a_pattern() {
        let response = big(b"300").unwrap();
        assert_eq!(response.body().len(), 300);
        assert_eq!((response.body()[250], response.body()[251]), (250, 0));
        assert_eq!(big(b"x").unwrap_err().status(), Some(400));
    }

    #[test]
    fn meta_comes_back_reversed() {
        let response = reverse_meta(Request::new(b"").with_meta(&[(":method", "GET"), ("a", "1")])).unwrap();
        assert!(response.headers().eq([("meta-a", "1"), ("meta-method", "GET")]));
    }
}

/// A long computation whose state is spread over a static, a thread-local, the heap and floating-point registers: rounds from the
/// body, and a hash of all of it that is the same for each call.
#[microfaas::function]
pub fn hash_loop(body: &[u8]) -> Result<String, Error> {
    static SUM: AtomicU64 = AtomicU64::new(17);
    thread_local!(static LOCAL: Cell<u64> = const { Cell::new(3) });
    let mut heap = std::collections::HashMap::new();
    let mut lanes = [1.0f64, 1.5, 2.5, 3.5];
    for round in 0..number::<u64>(body)? {
        SUM.fetch_add(round ^ LOCAL.get(), Ordering::Relaxed);
        LOCAL.set(LOCAL.get().rotate_left(5) ^ SUM.load(Ordering::Relaxed));
        *heap.entry(round % 101).or_insert(0u64) += LOCAL.get() & 0xff;
        for lane in &mut lanes {
            *lane = (*lane * 1.25 + 0.5).sqrt() + black_box(0.125);
        }
    }
    let heap: u64 = heap.into_iter().map(|(k, v)| (k + 1).wrapping_mul(v)).fold(0, u64::wrapping_add);
    let lanes = lanes.iter().fold(0, |sum, lane| sum ^ lane.to_bits());
    Ok(format!("{:x} {:x} {heap:x} {lanes:x}", SUM.load(Ordering::Relaxed), LOCAL.get()))
}

/// The number of the thread that calls run on: the same for each call, since each begins anew.
#[microfaas::function]
pub fn thread_id(_: &[u8]) -> String {
    format!("{:?}", std::thread::current().id())
}
