//! A name for each request, to find it again in logs.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::header::HeaderValue;

/// The header, both ways.
pub(crate) const HEADER: &str = "x-request-id";
const BYTES_MAX: usize = 64;

/// The client's own, if it cannot do harm in a header or a log; else a new one.
pub(crate) fn of(sent: Option<&HeaderValue>) -> String {
    match sent.and_then(|value| value.to_str().ok()) {
        Some(id) if is_sane(id) => id.to_owned(),
        _ => next(),
    }
}

fn is_sane(id: &str) -> bool {
    (1..=BYTES_MAX).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// Sixteen digits that differ from process to process, and a count.
fn next() -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static COUNT: AtomicU64 = AtomicU64::new(1);
    format!("{:016x}-{:x}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_one_is_kept() {
        let given = HeaderValue::from_static("req-7.A_b");
        assert_eq!(of(Some(&given)), "req-7.A_b");
    }

    #[test]
    fn others_are_replaced_and_differ() {
        let long = "a".repeat(65);
        for sent in ["", "a b", "a\tb", "{}", "a;b", &long] {
            let id = of(Some(&HeaderValue::from_str(sent).unwrap()));
            assert!(is_sane(&id) && id != sent, "{sent:?} became {id:?}");
        }
        let latin = HeaderValue::from_bytes(b"\xe9").unwrap();
        assert_ne!(of(Some(&latin)), of(None));
    }
}
