//! What a benchmark prints: one JSON object, or a table.

use std::io::Write;

use serde_json::{Map, Value, json};

use super::suite::Failed;
use crate::failure::Failure;

/// Something a figure is wanted to be.
#[derive(Debug)]
pub(super) struct Aim {
    pub(super) text: String,
    pub(super) met: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Report {
    bench: &'static str,
    pub(super) machine: Map<String, Value>,
    /// What was switched on.
    on: Vec<String>,
    results: Vec<(&'static str, f64, u64)>,
    /// A table of its own below the figures, for people.
    pub(super) more: String,
    pub(super) aims: Vec<Aim>,
    /// What does not hold, of a benchmark that tries things.
    pub(super) failed: Vec<Failed>,
}

impl Report {
    pub(super) fn new(bench: &'static str, machine: Map<String, Value>, on: Vec<String>) -> Self {
        Self {
            bench,
            machine,
            on,
            results: Vec::new(),
            more: String::new(),
            aims: Vec::new(),
            failed: Vec::new(),
        }
    }

    /// Adds a figure, rounded to what it can be worth, from `n` single measurements.
    pub(super) fn add(&mut self, key: &'static str, value: f64, n: u64) {
        let digits = if value.abs() >= 100.0 { 1.0 } else { 1000.0 };
        self.results.push((key, (value * digits).round() / digits, n));
    }

    pub(super) fn print(&self, json: bool) -> Result<(), Failure> {
        let text = if json { format!("{}\n", self.json()) } else { self.table() };
        crate::progress::end();
        anstream::stdout().write_all(text.as_bytes()).map_err(Failure::Stdout)
    }

    pub(super) fn json(&self) -> Value {
        let n: Map<String, Value> = self.results.iter().map(|&(key, _, n)| (key.into(), n.into())).collect();
        let results: Map<String, Value> =
            self.results.iter().map(|&(key, value, _)| (key.into(), json!(value))).collect();
        let Self { bench, machine, on, failed, .. } = self;
        json!({ "bench": bench, "machine": machine, "on": on, "n": n, "results": results, "failed": failed })
    }

    fn table(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.machine {
            text +=
                &format!("{name:<28}{}\n", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        text += &format!("{:<28}{}\n\n", "on", self.on.join(", "));
        for (key, value, n) in &self.results {
            text += &format!("{key:<28}{value:>14}   n {n}\n");
        }
        text.push('\n');
        text += &self.more;
        for Aim { text: aim, met } in &self.aims {
            text += &format!("{:<8}{aim}\n", if *met { "met" } else { "missed" });
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_its_fields_and_numbers() {
        let mut report = Report::new("warm", Map::new(), vec!["deadlines".into()]);
        report.add("rtt_64_ns_p50", 123.456, 7);
        report.add("idle_worker_cpu_pct", 0.012_345, 1);
        let json = report.json();
        assert_eq!(json["bench"], "warm");
        assert_eq!(json["results"]["rtt_64_ns_p50"], 123.0);
        assert_eq!(json["results"]["idle_worker_cpu_pct"], 0.012);
        assert_eq!(json["n"]["rtt_64_ns_p50"], 7);
        assert!(json["machine"].is_object() && json["on"].is_array() && json["failed"].is_array());
        assert!(report.table().contains("rtt_64_ns_p50"));
    }
}
