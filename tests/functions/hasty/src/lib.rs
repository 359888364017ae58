//! A function that tries to get out before its first call: its `init` reads a file. Its module must be refused.
#![forbid(unsafe_code)]

/// Reads a file.
pub fn read_early() -> Result<Vec<u8>, std::io::Error> {
    std::fs::read("/etc/hostname")
}

/// What `init` has read.
#[microfaas::function(init = read_early)]
pub fn hasty(read: &Vec<u8>, _: &[u8]) -> Vec<u8> {
    read.clone()
}
