//! attack  : 053_sys_write_files
//! class   : syscall
//! what    : Creates, writes, links, chmods and deletes files in /tmp, /dev/shm and cwd.
//! profile : std   (smallest guest profile in which this compiles)
//! calls   : ""
//! expect.status = DENIED|OK
//! expect.worker = same|restarted
//! expect.next_ok = true
//! expect.not_contains = wrote
//! expect.fd_delta = 0
//! notes   : Test also checks that no file was left.
#![forbid(unsafe_code)]
#![allow(unused, unconditional_recursion, clippy::all)]
pub fn attack(input: &[u8]) -> Vec<u8> {
    let mut o = String::new();
    for d in ["/tmp", "/dev/shm", "."] {
        let p = format!("{d}/microfaas_attack_{}", std::process::id());
        if std::fs::write(&p, input).is_ok() {
            o += &format!("wrote {p};");
            let _ = std::os::unix::fs::symlink("/etc", format!("{p}.l"));
            let _ = std::fs::remove_file(format!("{p}.l"));
            let _ = std::fs::remove_file(&p);
        } else {
            o += "denied;"
        }
    }
    o.into_bytes()
}
