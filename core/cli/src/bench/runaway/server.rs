//! This command as a server, in a process of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::bench::stopped;
use crate::failure::Failure;

/// The first 15 bytes of the worker's name, which is what the kernel keeps.
const WORKER: &str = "microfaas-worke";

/// See the module. Ended when dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Server {
    /// Starts it on a free port, with one worker, and waits until it is ready.
    pub(super) fn start(modules: &Path, settings: &Path) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(stopped)?;
        let mut child = Command::new(program)
            .args(["serve", "--http", "127.0.0.1:0", "--workers", "1"])
            .arg("--modules")
            .arg(modules)
            .arg("--config")
            .arg(settings)
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| stopped(format!("cannot start the server: {e}")))?;
        let said = child.stdout.take().map(BufReader::new);
        let mut server = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        for line in said.into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
            if let Some(address) = line.strip_prefix("listening on http://") {
                server.address = address.parse().map_err(stopped)?;
            }
            if line == "ready" && server.address.port() != 0 {
                return Ok(server);
            }
        }
        Err(stopped("the server ended before it was ready"))
    }

    /// Process id of the worker that serves now.
    pub(super) fn worker(&self) -> Result<u32, Failure> {
        let entries = fs::read_dir("/proc").map_err(stopped)?;
        let mut pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let mine = self.child.id();
        pids.find(|pid| parent_and_name(*pid).is_some_and(|(parent, name)| parent == mine && name == WORKER))
            .ok_or_else(|| stopped("the server has no worker"))
    }
}

/// Of a process.
fn parent_and_name(pid: u32) -> Option<(u32, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    Some((rest.split_whitespace().nth(1)?.parse().ok()?, name.to_owned()))
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its workers end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_parent() {
        let (parent, name) = parent_and_name(std::process::id()).expect("it runs");
        assert_eq!(parent, std::os::unix::process::parent_id());
        assert!(!name.is_empty());
    }
}
