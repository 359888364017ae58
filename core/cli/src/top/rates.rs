//! From two looks at a node to what goes on in it.

use std::time::Duration;

use microfaas_node::{FunctionStats, Latency, NodeStats, WorkerStats, histogram};

use crate::stats::{calls, ok, restarts};

/// One function in the time between two looks.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FunctionRow {
    pub(super) name: String,
    pub(super) calls_per_s: f64,
    /// Those that did not end with OK.
    pub(super) failures_per_s: f64,
    /// Cores that its calls have kept busy.
    pub(super) cores: f64,
    /// From submission to completion; `None` where no call ended.
    pub(super) p50_ns: Option<u64>,
    pub(super) p99_ns: Option<u64>,
    pub(super) queue_p99_ns: Option<u64>,
    /// Since the node was started.
    pub(super) calls: u64,
}

/// One worker in the time between two looks.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct WorkerRow {
    pub(super) worker: WorkerStats,
    pub(super) calls_per_s: f64,
    /// Share of its core that calls have had.
    pub(super) cores: f64,
    pub(super) restarts: u64,
}

/// Functions with most CPU time first, then most calls ever.
pub(super) fn functions(now: &NodeStats, then: &NodeStats, between: Duration) -> Vec<FunctionRow> {
    let all = |stats: &NodeStats| stats.functions.iter().chain(&stats.others).cloned().collect::<Vec<_>>();
    let earlier = all(then);
    let row = |function: FunctionStats| {
        let before = earlier.iter().find(|of| of.name == function.name).cloned().unwrap_or_default();
        let new = since(calls(&function), calls(&before));
        let well = since(ok(&function), ok(&before));
        let times =
            |of: fn(&FunctionStats) -> &Latency| histogram(of(&function)).since(&histogram(of(&before)));
        let (total, queue) = (times(|function| &function.total), times(|function| &function.queue));
        FunctionRow {
            calls_per_s: per_second(new, between),
            failures_per_s: per_second(new.saturating_sub(well), between),
            cores: per_second(since(function.cpu_ns, before.cpu_ns), between) / 1e9,
            p50_ns: total.quantile_ns(0.5),
            p99_ns: total.quantile_ns(0.99),
            queue_p99_ns: queue.quantile_ns(0.99),
            calls: calls(&function),
            name: if function.name.is_empty() { "(others)".to_owned() } else { function.name },
        }
    };
    let mut rows: Vec<FunctionRow> = all(now).into_iter().map(row).collect();
    rows.sort_by(|a, b| b.cores.total_cmp(&a.cores).then(b.calls.cmp(&a.calls)).then(a.name.cmp(&b.name)));
    rows
}

/// In the order of their numbers.
pub(super) fn workers(now: &NodeStats, then: &NodeStats, between: Duration) -> Vec<WorkerRow> {
    let row = |worker: &WorkerStats| {
        let before = then.workers.iter().find(|of| of.index == worker.index).cloned().unwrap_or_default();
        WorkerRow {
            calls_per_s: per_second(since(worker.calls, before.calls), between),
            cores: per_second(since(worker.cpu_ns, before.cpu_ns), between) / 1e9,
            restarts: restarts(worker),
            worker: worker.clone(),
        }
    };
    now.workers.iter().map(row).collect()
}

/// A count that was greater before is another node's.
fn since(now: u64, then: u64) -> u64 {
    now.checked_sub(then).unwrap_or(now)
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
fn per_second(count: u64, between: Duration) -> f64 {
    count as f64 / between.as_secs_f64().max(1e-3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, ok: u64, failed: u64, cpu_ns: u64) -> FunctionStats {
        let calls = [("OK".to_owned(), ok), ("PANIC".to_owned(), failed)].into();
        let total = Latency { buckets: vec![(64, ok)], ..Latency::default() };
        FunctionStats { name: name.into(), calls, cpu_ns, total, ..FunctionStats::default() }
    }

    fn node(functions: Vec<FunctionStats>) -> NodeStats {
        NodeStats { functions, ..NodeStats::default() }
    }

    #[test]
    fn rates_are_of_the_time_between() {
        let then = node(vec![function("a", 10, 0, 1000)]);
        let now = node(vec![function("a", 30, 4, 1000), function("b", 2, 0, 1_000_000_000)]);
        let rows = functions(&now, &then, Duration::from_secs(2));
        assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!((rows[1].calls_per_s, rows[1].failures_per_s, rows[1].calls), (12.0, 2.0, 34));
        assert_eq!((rows[0].cores, rows[0].p50_ns), (0.5, Some(72)));
    }

    #[test]
    fn a_node_that_was_restarted_begins_anew() {
        let (then, now) = (node(vec![function("a", 100, 0, 9)]), node(vec![function("a", 7, 0, 1)]));
        assert_eq!(functions(&now, &then, Duration::from_secs(1))[0].calls_per_s, 7.0);
    }
}
