//! What only a worker sees: measured by the program `bench-inside`, on the worker's core.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::bench::report::Report;
use crate::bench::stopped;
use crate::failure::Failure;

/// Its figures, each with the keys under which the median and the 99th percentile are reported.
const FIGURES: [(&str, &str, &str); 4] = [
    ("call_overhead_ns", "call_overhead_ns", "call_overhead_ns_p99"),
    ("timer_floor_us", "timer_floor_us_p50", "timer_floor_us_p99"),
    ("next_call_us", "next_call_us_p50", "next_call_us_p99"),
    ("periodic_timer_tax_20us_pct", "periodic_timer_tax_20us_pct", "periodic_timer_tax_20us_pct_p99"),
];

/// See the module.
#[derive(Debug)]
pub(super) struct Inside {
    report: Value,
}

impl Inside {
    /// Runs the program for that time.
    pub(super) fn run(program: &Path, modules: &Path, core: u32, seconds: f64) -> Result<Self, Failure> {
        let output = Command::new(program)
            .args([modules.join("hashes.so"), modules.join("probe.so")])
            .args([core.to_string(), seconds.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .map_err(|e| stopped(format!("cannot start {}: {e}", program.display())))?;
        let said = if output.status.success() { &output.stdout } else { &output.stderr };
        let report = serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success());
        let report = report.ok_or_else(|| {
            let said = String::from_utf8_lossy(said);
            stopped(format!("bench-inside failed ({}): {}", output.status, said.trim()))
        })?;
        Ok(Self { report })
    }

    /// The median of one of its figures.
    pub(super) fn median(&self, name: &str) -> f64 {
        self.report[name]["p50"].as_f64().unwrap_or(f64::NAN)
    }

    pub(super) fn add_to(&self, report: &mut Report) -> Result<(), Failure> {
        for (name, p50, p99) in FIGURES {
            let figure = &self.report[name];
            let number = |key: &str| figure[key].as_f64();
            let (Some(n), Some(median), Some(tail)) = (figure["n"].as_u64(), number("p50"), number("p99"))
            else {
                return Err(stopped(format!("bench-inside has not measured {name}")));
            };
            report.add(p50, median, n);
            report.add(p99, tail, n);
        }
        Ok(())
    }
}
