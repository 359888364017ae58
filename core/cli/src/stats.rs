//! `stats`: a node's counts, once.

use std::io::Write;

use microfaas_node::{AttachedStats, FunctionStats, NodeStats, SpareStats, WorkerStats};

use crate::args::{AtNode, Stats};
use crate::deploy;
use crate::failure::Failure;

pub(crate) fn run(args: &Stats) -> Result<(), Failure> {
    let AtNode { socket, config, json } = &args.node;
    let stats = microfaas_node::stats(deploy::socket(socket.as_deref(), config.as_deref())?)?;
    let mut out = std::io::stdout().lock();
    let text = if *json {
        serde_json::to_string(&stats).map_err(|error| Failure::Stdout(error.into()))? + "\n"
    } else {
        table(&stats)
    };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Stdout)
}

fn table(stats: &NodeStats) -> String {
    let names = stats.functions.iter().chain(&stats.others).map(|function| function.name.len());
    let width = names.max().unwrap_or(0).max(8);
    let mut text = format!(
        "{:width$} {:>12} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}\n",
        "FUNCTION", "CALLS", "NOT OK", "CPU", "QUEUE p50", "RUN p50", "TOTAL p50", "TOTAL p99"
    );
    for function in stats.functions.iter().chain(&stats.others) {
        text.push_str(&function_line(function, width));
    }
    text.push_str(&format!(
        "\n{:width$} {:>12} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}\n",
        "WORKER", "CALLS", "RESTARTS", "CPU", "SLOTS", "MODULES", "COLD", "EVICTED"
    ));
    for worker in &stats.workers {
        text.push_str(&worker_line(worker, width));
    }
    text = text + "\n" + &spares(&stats.spares) + "\n";
    if !stats.hosts.is_empty() {
        text.push_str(&format!("\n{:width$} {:>12} {:>10}  WITHOUT A WORKER\n", "HOST", "USER", "FOR"));
    }
    for host in &stats.hosts {
        text.push_str(&host_line(host, width));
    }
    text
}

/// What there is of processes that wait to take a worker's place.
pub(crate) fn spares(spares: &SpareStats) -> String {
    let (ready, wanted) = (spares.ready.len(), spares.wanted);
    let pauses = if spares.backing_off { ", the next one waits, since they end too often" } else { "" };
    format!("spares: {ready} of {wanted} ready, {} taken, {} ended{pauses}", spares.adopted, spares.ended)
}

fn function_line(function: &FunctionStats, width: usize) -> String {
    let name = if function.name.is_empty() { "(others)" } else { &function.name };
    format!(
        "{name:width$} {:>12} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10}\n",
        calls(function),
        calls(function) - ok(function),
        time(function.cpu_ns),
        time(function.queue.p50_ns),
        time(function.run.p50_ns),
        time(function.total.p50_ns),
        time(function.total.p99_ns),
    )
}

fn worker_line(worker: &WorkerStats, width: usize) -> String {
    let name = format!("{} {}", worker.index, worker.state);
    let slots = format!("{}/{}", worker.slots_in_use, worker.slots);
    format!(
        "{name:width$} {:>12} {:>10} {:>10} {slots:>10} {:>10} {:>10} {:>10}\n",
        worker.calls,
        restarts(worker),
        time(worker.cpu_ns),
        worker.modules.loaded,
        worker.modules.cold_loads,
        worker.modules.evictions,
    )
}

fn host_line(host: &AttachedStats, width: usize) -> String {
    let AttachedStats { pid, uid, for_ms, decided } = host;
    let decided: Vec<_> = decided.iter().map(|(status, count)| format!("{status} {count}")).collect();
    let decided = if decided.is_empty() { "-".to_owned() } else { decided.join(", ") };
    format!("{pid:<width$} {uid:>12} {:>10}  {decided}\n", time(for_ms.saturating_mul(1_000_000)))
}

/// Calls that ended, however they did.
pub(crate) fn calls(function: &FunctionStats) -> u64 {
    function.calls.values().fold(0, |sum, n| sum.saturating_add(*n))
}

/// Calls that ended well.
pub(crate) fn ok(function: &FunctionStats) -> u64 {
    function.calls.get("OK").copied().unwrap_or(0)
}

pub(crate) fn restarts(worker: &WorkerStats) -> u64 {
    worker.restarts.values().sum()
}

/// Three digits and a unit.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn time(ns: u64) -> String {
    let ns = ns as f64;
    let (value, unit) = match ns {
        ns if ns < 1e3 => return format!("{ns} ns"),
        ns if ns < 1e6 => (ns / 1e3, "us"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn times_have_three_digits() {
        for (ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1234, "1.23 us"),
            (45_600_000, "45.6 ms"),
            (7_890_000_000_000, "7890 s"),
        ] {
            assert_eq!(time(ns), text);
        }
    }

    #[test]
    fn a_line_for_each() {
        let calls = BTreeMap::from([("OK".to_owned(), 5), ("PANIC".to_owned(), 2)]);
        let function =
            FunctionStats { name: "hello".into(), calls, cpu_ns: 1500, ..FunctionStats::default() };
        let worker = WorkerStats { state: "serving".into(), calls: 7, slots: 64, ..WorkerStats::default() };
        let stats = NodeStats { functions: vec![function], workers: vec![worker], ..NodeStats::default() };
        let text = table(&stats);
        let words = |start| {
            text.lines()
                .find(|line| line.starts_with(start))
                .unwrap()
                .split_whitespace()
                .take(5)
                .collect::<Vec<_>>()
        };
        assert_eq!(words("hello"), ["hello", "7", "2", "1.50", "us"]);
        assert_eq!(words("0 serving"), ["0", "serving", "7", "0", "0"]);
        let spares =
            SpareStats { wanted: 2, ready: vec![7], backing_off: true, ended: 9, ..SpareStats::default() };
        assert!(!text.contains("HOST"), "{text}");
        let decided = BTreeMap::from([("OVERLOADED".to_owned(), 3), ("WORKER_LOST".to_owned(), 1)]);
        let hosts =
            vec![AttachedStats { pid: 77, uid: 1000, for_ms: 12_300, decided }, AttachedStats::default()];
        let text = table(&NodeStats { hosts, ..NodeStats::default() });
        let rows: Vec<Vec<_>> =
            text.lines().rev().take(2).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["77", "1000", "12.3", "s", "OVERLOADED", "3,", "WORKER_LOST", "1"]);
        assert_eq!(rows[0].last(), Some(&"-"));
        let text = self::spares(&spares);
        assert_eq!(
            text,
            "spares: 1 of 2 ready, 0 taken, 9 ended, the next one waits, since they end too often"
        );
    }
}
