//! The families that count by worker.

use std::fmt;
use std::time::Duration;

use microfaas_node::{Metrics, RestartCause, SpareInfo, Usage, WorkerMetrics, WorkerState};
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{count, named, seconds};

/// What each worker has had of each function's calls: sums only, and only where there are any, since these are as many series as functions times workers.
pub(super) fn shares(encoder: &mut DescriptorEncoder, metrics: &Metrics) -> fmt::Result {
    let shares: Vec<(&str, String, u64, u64)> = named(metrics)
        .flat_map(|(name, function)| {
            let of = move |(worker, usage): (usize, &Usage)| {
                (name, worker.to_string(), usage.calls_total(), usage.cpu_ns)
            };
            function.workers.iter().enumerate().map(of)
        })
        .filter(|(.., calls, _)| *calls > 0)
        .collect();
    let help = "Calls that ended in a worker";
    let mut calls = encoder.encode_descriptor("microfaas_worker_calls", help, None, MetricType::Counter)?;
    for (function, worker, times, _) in &shares {
        count(&mut calls, &[("function", *function), ("worker", worker)], *times)?;
    }
    let help = "CPU time of calls in a worker";
    let mut cpu =
        encoder.encode_descriptor("microfaas_worker_cpu", help, Some(&Unit::Seconds), MetricType::Counter)?;
    for (function, worker, _, ns) in &shares {
        cpu.encode_family(&[("function", *function), ("worker", worker.as_str())])?
            .encode_counter::<NoLabelSet, _, f64>(&seconds(*ns), None)?;
    }
    Ok(())
}

pub(super) fn workers(encoder: &mut DescriptorEncoder, metrics: &Metrics) -> fmt::Result {
    let workers: Vec<(String, _)> =
        metrics.workers.iter().map(|worker| (worker.info.index.to_string(), worker)).collect();
    let mut up = encoder.encode_descriptor(
        "microfaas_worker_up",
        "Whether the worker takes calls",
        None,
        MetricType::Gauge,
    )?;
    for (index, worker) in &workers {
        let is_up = u32::from(worker.info.state == WorkerState::Serving);
        up.encode_family(&[("worker", index.as_str())])?.encode_gauge(&is_up)?;
    }
    let help = "Workers that have ended and were replaced, by cause";
    let mut restarts =
        encoder.encode_descriptor("microfaas_worker_restarts", help, None, MetricType::Counter)?;
    for (index, worker) in &workers {
        for (cause, times) in RestartCause::ALL.into_iter().zip(worker.restarts) {
            count(&mut restarts, &[("worker", index.as_str()), ("cause", cause.name())], times)?;
        }
    }
    modules(encoder, &workers)?;
    spares(encoder, &metrics.spares)?;
    let help = "Calls that the worker has not completed, of this host";
    let mut used = encoder.encode_descriptor("microfaas_slots_in_use", help, None, MetricType::Gauge)?;
    for (index, worker) in &workers {
        used.encode_family(&[("worker", index.as_str())])?.encode_gauge(&worker.info.outstanding)?;
    }
    let help = "Most calls that this host can have at the worker";
    let mut slots = encoder.encode_descriptor("microfaas_slots", help, None, MetricType::Gauge)?;
    for (index, worker) in &workers {
        slots.encode_family(&[("worker", index.as_str())])?.encode_gauge(&worker.slots)?;
    }
    Ok(())
}

fn spares(encoder: &mut DescriptorEncoder, spares: &SpareInfo) -> fmt::Result {
    let help = "Processes that wait to take a worker's place, by what they are doing";
    let mut there = encoder.encode_descriptor("microfaas_spares", help, None, MetricType::Gauge)?;
    for (state, pids) in [("ready", &spares.ready), ("starting", &spares.starting)] {
        there.encode_family(&[("state", state)])?.encode_gauge(&(pids.len() as u64))?;
    }
    let help = "Whether the next process that is to wait to take a worker's place is started later, since they end too often";
    let mut pause =
        encoder.encode_descriptor("microfaas_spares_backing_off", help, None, MetricType::Gauge)?;
    pause.encode_gauge(&u32::from(spares.backing_off))?;
    let help = "Processes that waited to take a worker's place, by what became of them";
    let mut gone = encoder.encode_descriptor("microfaas_spares_gone", help, None, MetricType::Counter)?;
    for (fate, times) in [("adopted", spares.adopted), ("ended", spares.ended)] {
        count(&mut gone, &[("fate", fate)], times)?;
    }
    Ok(())
}

/// One of the counts of a worker.
type OfWorker = fn(&WorkerMetrics) -> u64;

/// What the workers have loaded.
fn modules(encoder: &mut DescriptorEncoder, workers: &[(String, &WorkerMetrics)]) -> fmt::Result {
    let help = "Modules that are loaded";
    let mut loaded = encoder.encode_descriptor("microfaas_modules_loaded", help, None, MetricType::Gauge)?;
    for (index, worker) in workers {
        loaded.encode_family(&[("worker", index.as_str())])?.encode_gauge(&worker.stocked.modules)?;
    }
    let (name, help) = ("microfaas_modules_loaded", "Memory that loaded modules take");
    let mut bytes = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?;
    for (index, worker) in workers {
        bytes.encode_family(&[("worker", index.as_str())])?.encode_gauge(&worker.stocked.bytes)?;
    }
    let counts: [(&str, &str, OfWorker); 3] = [
        ("microfaas_cold_loads", "Modules that were loaded for a call that waited", |of| {
            of.stocked.cold_loads
        }),
        (
            "microfaas_cold_load_failures",
            "Modules that a call waited for and that could not be loaded",
            |of| of.stocked.cold_load_failures,
        ),
        ("microfaas_evictions", "Modules that were unloaded to make room for others", |of| {
            of.stocked.evictions
        }),
    ];
    for (name, help, of) in counts {
        let mut counts = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (index, worker) in workers {
            count(&mut counts, &[("worker", index.as_str())], of(worker))?;
        }
    }
    let help = "Time that calls have waited for modules to be loaded";
    let mut waited =
        encoder.encode_descriptor("microfaas_cold_load", help, Some(&Unit::Seconds), MetricType::Counter)?;
    for (index, worker) in workers {
        let waited_s = Duration::from_nanos(worker.stocked.cold_load_ns).as_secs_f64();
        let label = [("worker", index.as_str())];
        waited.encode_family(&label)?.encode_counter::<NoLabelSet, _, f64>(&waited_s, None)?;
    }
    Ok(())
}
