//! attack  : 100_ctl_collections
//! class   : control
//! what    : CONTROL: ordinary business code: HashMap, BTreeMap, format, sort, parse, f64.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = OK
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
use std::collections::{BTreeMap, HashMap};
pub fn attack(input: &[u8]) -> Vec<u8> {
    let t = String::from_utf8_lossy(input);
    let mut m: HashMap<&str, usize> = HashMap::new();
    for w in t.split_whitespace() {
        *m.entry(w).or_default() += 1
    }
    let b: BTreeMap<_, _> = m.into_iter().collect();
    let mut v: Vec<f64> = (0..1000).map(|i| (i as f64).sin()).collect();
    v.sort_by(f64::total_cmp);
    format!("{b:?} {:.3}", v[999]).into_bytes()
}
