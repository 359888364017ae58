//! attack  : 067_sys_env_args_cwd
//! class   : syscall
//! what    : Reads environment, argv, cwd, exe path, hostname; changes the cwd.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = DENIED|OK
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.not_contains = PATH=
//! expect.fd_delta = 0
//! notes   : Worker must start with an empty environment and scrubbed argv: reading env needs no syscall, so seccomp cannot stop it.
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(_input: &[u8]) -> Vec<u8> {
    let mut o: String = std::env::vars_os()
        .map(|(k, v)| format!("{}={};", k.to_string_lossy(), v.to_string_lossy()))
        .collect();
    o += &std::env::args().collect::<Vec<_>>().join(" ");
    if let Ok(d) = std::env::current_dir() {
        o += &d.to_string_lossy()
    }
    let _ = std::env::set_current_dir("/");
    o.into_bytes()
}
