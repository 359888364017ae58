//! Runs the programs of `tests/bench/rivals`. They measure by themselves, on the same two cores.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::cores::Cores;
use super::prepare::Checkout;
use super::stopped;
use crate::failure::Failure;

/// The rivals' programs.
#[derive(Debug)]
pub(super) struct Rivals {
    programs: Vec<PathBuf>,
    cores: Cores,
}

/// What a rival has measured, its clock's cost taken off.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rival {
    pub(super) n: u64,
    pub(super) p50_ns: f64,
    pub(super) clock_ns: f64,
}

impl Rivals {
    pub(super) fn build(checkout: &Checkout, cores: Cores) -> Result<Self, Failure> {
        Ok(Self { programs: checkout.rivals()?, cores })
    }

    /// Runs one for that time.
    pub(super) fn run(&self, name: &str, payload: usize, seconds: f64) -> Result<Rival, Failure> {
        let file = format!("rival-{name}");
        let program = self.programs.iter().find(|program| program.file_name().is_some_and(|n| n == &*file));
        let program = program.ok_or_else(|| stopped(format!("cargo has built no {file}")))?;
        let output = Command::new(program)
            .args(["--payload", &payload.to_string(), "--seconds", &seconds.to_string()])
            .args(["--server-cpu", &self.cores.worker.to_string()])
            .args(["--client-cpu", &self.cores.host.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .map_err(|e| stopped(format!("cannot start {file}: {e}")))?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(stopped(format!("{file} failed ({}): {}", output.status, why.trim())));
        }
        parse(&output.stdout).ok_or_else(|| {
            stopped(format!("{file} printed no report: {}", String::from_utf8_lossy(&output.stdout).trim()))
        })
    }
}

fn parse(stdout: &[u8]) -> Option<Rival> {
    let report: Value = serde_json::from_slice(stdout).ok()?;
    let clock_ns = report["clock_ns"].as_f64()?;
    let p50_ns = (report["p50_ns"].as_f64()? - clock_ns).max(0.0);
    Some(Rival { n: report["n"].as_u64()?, p50_ns, clock_ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_taken_off() {
        let line =
            br#"{"rival":"uds","payload":64,"n":7,"p50_ns":150,"p99_ns":200,"p999_ns":300,"clock_ns":25}"#;
        let rival = parse(line).expect("a report");
        assert_eq!((rival.n, rival.p50_ns, rival.clock_ns), (7, 125.0, 25.0));
        assert!(parse(b"rival-uds: no").is_none());
    }
}
