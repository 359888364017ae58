//! Metrics in the form in which others get to see them.

use std::collections::BTreeMap;

use microfaas_control::stats::{
    AttachedStats, FunctionStats, HostStats, Latency, ModuleStats, NodeStats, ShareStats, SpareStats,
    WorkerStats,
};
use microfaas_lane::Status;
use microfaas_metrics::{Histogram, Usage, bucket_of, lower_bound_ns};

use crate::attach::HostInfo;
use crate::metrics::{FunctionMetrics, Metrics, RestartCause, WorkerMetrics};
use crate::seat::WorkerState;
use crate::spare::SpareInfo;

impl Metrics {
    /// These numbers, to be sent or printed.
    #[must_use]
    pub fn report(&self) -> NodeStats {
        let of = |worker: usize| {
            self.functions.iter().chain(&self.others).filter_map(move |f| f.workers.get(worker))
        };
        let workers = self.workers.iter().enumerate().map(|(index, found)| worker(found, of(index)));
        NodeStats {
            pid: std::process::id(),
            functions: self.functions.iter().map(function).collect(),
            others: self.others.as_ref().map(function),
            workers: workers.collect(),
            spares: spares(&self.spares),
            hosts: self.hosts.iter().map(host).collect(),
            host: HostStats {
                completed: by_status(&self.stats.completed),
                abandoned: self.stats.abandoned,
                outstanding: self.stats.outstanding,
                violations: self.stats.violations,
                pokes: self.stats.pokes,
                moves: self.stats.moves,
                retries: self.stats.retries,
            },
        }
    }
}

fn spares(info: &SpareInfo) -> SpareStats {
    let SpareInfo { wanted, ready, starting, adopted, ended, backing_off } = info.clone();
    SpareStats { wanted, ready, starting, backing_off, adopted, ended }
}

fn host(info: &HostInfo) -> AttachedStats {
    let for_ms = u64::try_from(info.since.elapsed().as_millis()).unwrap_or(u64::MAX);
    AttachedStats { pid: info.pid, uid: info.uid, for_ms, decided: by_status(&info.decided) }
}

/// A histogram again, of what was sent.
#[must_use]
pub fn histogram(latency: &Latency) -> Histogram {
    Histogram::of(latency.buckets.iter().map(|(ns, count)| (bucket_of(*ns), *count)), latency.sum_ns)
}

fn function(function: &FunctionMetrics) -> FunctionStats {
    let total = function.total();
    FunctionStats {
        name: function.name.clone(),
        calls: by_status(&total.calls),
        cpu_ns: total.cpu_ns,
        request_bytes: total.request_bytes,
        response_bytes: total.response_bytes,
        queue: latency(&total.queue),
        run: latency(&total.run),
        total: latency(&total.total),
        workers: (0..).zip(&function.workers).filter_map(|(worker, usage)| share(worker, usage)).collect(),
    }
}

/// `None` where it has had none of the calls.
fn share(worker: u32, usage: &Usage) -> Option<ShareStats> {
    let p99 = |times: &Histogram| times.quantile_ns(0.99).unwrap_or(0);
    (usage.calls_total() > 0).then(|| ShareStats {
        worker,
        calls: by_status(&usage.calls),
        cpu_ns: usage.cpu_ns,
        request_bytes: usage.request_bytes,
        response_bytes: usage.response_bytes,
        queue_p99_ns: p99(&usage.queue),
        run_p99_ns: p99(&usage.run),
        total_p99_ns: p99(&usage.total),
    })
}

fn by_status(counts: &[u64; Status::ALL.len()]) -> BTreeMap<String, u64> {
    let named = Status::ALL.into_iter().zip(counts).filter(|(_, count)| **count > 0);
    named.map(|(status, count)| (status.name().to_owned(), *count)).collect()
}

fn latency(times: &Histogram) -> Latency {
    let quantile = |share| times.quantile_ns(share).unwrap_or(0);
    Latency {
        count: times.count(),
        sum_ns: times.sum_ns,
        p50_ns: quantile(0.5),
        p90_ns: quantile(0.9),
        p99_ns: quantile(0.99),
        p999_ns: quantile(0.999),
        buckets: times.filled().map(|(bucket, count)| (lower_bound_ns(bucket), count)).collect(),
    }
}

fn worker<'a>(worker: &WorkerMetrics, usages: impl Iterator<Item = &'a Usage>) -> WorkerStats {
    let info = &worker.info;
    let (calls, cpu_ns) = usages.fold((0_u64, 0_u64), |(calls, cpu_ns), usage| {
        (calls.saturating_add(usage.calls_total()), cpu_ns.saturating_add(usage.cpu_ns))
    });
    let state = match info.state {
        WorkerState::Starting => "starting",
        WorkerState::Serving => "serving",
        WorkerState::BackingOff => "backing_off",
        WorkerState::Stopped => "stopped",
    };
    let restarts = RestartCause::ALL.into_iter().zip(worker.restarts);
    WorkerStats {
        index: info.index,
        pid: info.pid,
        cpu: info.cpu,
        state: state.to_owned(),
        generation: info.generation,
        restarts: restarts.map(|(cause, times)| (cause.name().to_owned(), times)).collect(),
        modules: ModuleStats {
            loaded: worker.stocked.modules,
            bytes: worker.stocked.bytes,
            cold_loads: worker.stocked.cold_loads,
            cold_load_ns: worker.stocked.cold_load_ns,
            cold_load_failures: worker.stocked.cold_load_failures,
            evictions: worker.stocked.evictions,
        },
        slots: worker.slots,
        slots_in_use: info.outstanding,
        calls,
        cpu_ns,
    }
}
