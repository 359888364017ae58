//! attack  : 007_cpu_backtracking
//! class   : cpu
//! what    : Regex-like exponential backtracking ((a|aa)*b on aaaa...).
//! profile : nostd+alloc   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = TIMEOUT
//! expect.worker = same
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
fn m(s: &[u8], i: usize) -> bool {
    if i < s.len() && s[i] == b'b' {
        return true;
    }
    (i + 1 <= s.len() && s[i..].starts_with(b"a") && m(s, i + 1))
        | (i + 2 <= s.len() && s[i..].starts_with(b"aa") && m(s, i + 2))
}
pub fn attack(input: &[u8]) -> Vec<u8> {
    let s = vec![b'a'; 90 + input.len() % 2];
    vec![m(std::hint::black_box(&s), 0) as u8]
}
