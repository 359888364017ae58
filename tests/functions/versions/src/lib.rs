//! Functions that say which version of their module they are. The version is in the module's data, where a test changes it without building anew:
//! the four digits behind the marker, and a letter for what `init` does.
#![forbid(unsafe_code)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use microfaas::{Error, Response};

const MARK: usize = b"microfaas-version-marker:".len();
static MARKER: [u8; MARK + 6] = *b"microfaas-version-marker:0001-;";

fn marker() -> &'static [u8] {
    &black_box(&MARKER)[MARK..]
}

/// What this version does before its first call.
///
/// # Errors
/// For the letter E.
pub fn prepare() -> Result<Vec<u8>, Error> {
    match marker()[4] {
        b'E' => return Err(Error::new("not today")),
        b'P' => panic!("in init"),
        b'A' => std::process::abort(),
        b'S' => spin(Duration::from_millis(100)),
        b'L' => spin(Duration::from_secs(3)),
        b'F' => drop(std::fs::read("/etc/hostname")),
        _ => {}
    }
    Ok(marker()[..4].to_vec())
}

fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// The version as `init` has read it, as the call finds it at its start, the body, and the version as the call finds it at its end.
#[microfaas::function(init = prepare)]
pub fn version(prepared: &Vec<u8>, body: &[u8]) -> Response {
    let mut response = Response::in_place();
    for part in [prepared, &b" "[..], &marker()[..4], b" ", body, b" ", &marker()[..4]] {
        response.extend_from_slice(part);
    }
    response
}

/// As `version`, after as many milliseconds of work as the body says.
#[microfaas::function]
pub fn version_slow(body: &[u8]) -> Result<Vec<u8>, Error> {
    let time = std::str::from_utf8(body).ok().and_then(|text| text.parse().ok());
    let time = time.ok_or_else(|| Error::new("not a number"))?;
    let start = marker()[..4].to_vec();
    spin(Duration::from_millis(time));
    Ok([&start, &b" "[..], &marker()[..4]].concat())
}
