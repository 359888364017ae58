//! attack  : 070_sys_stdin_block
//! class   : syscall
//! what    : Blocks reading stdin.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = OK|DENIED|TIMEOUT
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.fd_delta = 0
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(_input: &[u8]) -> Vec<u8> {
    let mut s = String::new();
    let r = std::io::stdin().read_line(&mut s);
    format!("{r:?}").into_bytes()
}
