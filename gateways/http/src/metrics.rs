//! A node's metrics as a page of text for Prometheus, in the OpenMetrics form.

use std::fmt;
use std::time::Duration;

use microfaas_node::{
    BUCKETS, FunctionMetrics, Histogram, Metrics, RestartCause, Status, Usage, WorkerMetrics, WorkerState,
    lower_bound_ns,
};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

/// What the page is.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// What stands in place of a name for functions that are not counted apart. No function has such a name.
const OTHERS: &str = "(others)";
/// Four of the node's buckets, a power of two, are one of the page's, so that a function has 31 of them: from 128 ns to two minutes.
const STEP: usize = 4;
/// The first bucket of the node's that begins where one of the page's ends: at 128 ns.
const FIRST: usize = 9;
const LAST: usize = FIRST + 30 * STEP;

const _: () =
    assert!(lower_bound_ns(FIRST) == 128 && LAST < BUCKETS && lower_bound_ns(LAST) > 120_000_000_000);

/// The page.
///
/// # Errors
/// Never: a string takes everything.
pub(crate) fn page(metrics: Metrics) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page(metrics)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Page(Metrics);

type Totals<'a> = [(&'a str, Usage)];

/// Where a family's numbers are, or its times.
type Number = fn(&Usage) -> u64;
type Times = fn(&Usage) -> &Histogram;

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let metrics = &self.0;
        let named = metrics.functions.iter().map(|function| (function.name.as_str(), function));
        let others = metrics.others.iter().map(|others| (OTHERS, others));
        let all = named.chain(others);
        let totals: Vec<(&str, Usage)> =
            all.map(|(name, function)| (name, FunctionMetrics::total(function))).collect();
        functions(&mut encoder, &totals)?;
        shares(&mut encoder, metrics)?;
        workers(&mut encoder, metrics)?;
        node(&mut encoder, metrics)
    }
}

fn functions(encoder: &mut DescriptorEncoder, totals: &Totals) -> fmt::Result {
    let mut calls = encoder.encode_descriptor(
        "microfaas_calls",
        "Calls that ended, by status",
        None,
        MetricType::Counter,
    )?;
    for (function, usage) in totals {
        for status in Status::ALL.into_iter().filter(|status| usage.calls(*status) > 0) {
            count(&mut calls, &[("function", *function), ("status", status.name())], usage.calls(status))?;
        }
    }
    let help = "CPU time of calls";
    let mut cpu =
        encoder.encode_descriptor("microfaas_cpu", help, Some(&Unit::Seconds), MetricType::Counter)?;
    for (function, usage) in totals {
        cpu.encode_family(&[("function", *function)])?
            .encode_counter::<NoLabelSet, _, f64>(&seconds(usage.cpu_ns), None)?;
    }
    let sizes: [(&str, &str, Number); 2] = [
        ("microfaas_request", "Body and metadata of the requests of calls that ran", |usage| {
            usage.request_bytes
        }),
        ("microfaas_response", "Body and metadata of the responses of calls that ran", |usage| {
            usage.response_bytes
        }),
    ];
    for (name, help, of) in sizes {
        let mut bytes = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Counter)?;
        for (function, usage) in totals {
            count(&mut bytes, &[("function", *function)], of(usage))?;
        }
    }
    let times: [(&str, &str, Times); 3] = [
        ("microfaas_queue", "From the submission of calls to their start", |usage| &usage.queue),
        ("microfaas_run", "CPU time of calls, each", |usage| &usage.run),
        ("microfaas_call", "From the submission of calls to their completion", |usage| &usage.total),
    ];
    for (name, help, of) in times {
        let mut times = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (function, usage) in totals {
            histogram(&mut times, function, of(usage))?;
        }
    }
    Ok(())
}

/// What each worker has had of each function's calls: sums only, and only where there are any, since these are as many series as functions times workers.
fn shares(encoder: &mut DescriptorEncoder, metrics: &Metrics) -> fmt::Result {
    let named = metrics.functions.iter().map(|function| (function.name.as_str(), function));
    let all = named.chain(metrics.others.iter().map(|others| (OTHERS, others)));
    let shares: Vec<(&str, String, u64, u64)> = all
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

fn workers(encoder: &mut DescriptorEncoder, metrics: &Metrics) -> fmt::Result {
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
    let spares = &metrics.spares;
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

fn node(encoder: &mut DescriptorEncoder, metrics: &Metrics) -> fmt::Result {
    let stats = &metrics.stats;
    let counts = [
        ("microfaas_abandoned", "Calls that came back after their callers had gone", stats.abandoned),
        ("microfaas_violations", "Times a worker broke a lane's protocol", stats.violations),
        ("microfaas_pokes", "Times a long slice was taken from a call for another", stats.pokes),
        ("microfaas_moves", "Times a call went to another worker", stats.moves),
        ("microfaas_retries", "Times a call was run again, since its worker was lost with it", stats.retries),
    ];
    for (name, help, times) in counts {
        let mut encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        encoder.encode_counter::<NoLabelSet, _, f64>(&times, None)?;
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

fn count(encoder: &mut MetricEncoder, labels: &impl EncodeLabelSet, times: u64) -> fmt::Result {
    encoder.encode_family(labels)?.encode_counter::<NoLabelSet, _, f64>(&times, None)
}

fn histogram(encoder: &mut MetricEncoder, function: &str, times: &Histogram) -> fmt::Result {
    let counts = times.counts();
    let mut buckets = Vec::with_capacity(32);
    let mut from = 0;
    for end in (FIRST..=LAST).step_by(STEP) {
        buckets.push((seconds(lower_bound_ns(end)), sum(&counts[from..end])));
        from = end;
    }
    buckets.push((f64::INFINITY, sum(&counts[from..])));
    let (sum, count) = (seconds(times.sum_ns), buckets.iter().map(|(_, n)| n).sum());
    encoder
        .encode_family(&[("function", function)])?
        .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

/// So little that the buckets can be added up, whatever a worker has said.
fn sum(counts: &[u64]) -> u64 {
    counts.iter().fold(0_u64, |sum, n| sum.saturating_add(*n)).min(1 << 56)
}

#[expect(clippy::cast_precision_loss, reason = "a nanosecond in a hundred days may go")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;

    /// A family's type, and its samples: name, labels, value.
    type Families = BTreeMap<String, (String, Vec<(String, BTreeMap<String, String>, f64)>)>;

    /// Reads a page as the OpenMetrics specification demands, and fails where it is not followed.
    fn parse(page: &str) -> Families {
        let body = page.strip_suffix("# EOF\n").expect("the page ends with EOF");
        let mut families = Families::new();
        let (mut current, mut seen) = (String::new(), HashSet::new());
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# ") {
                let (word, rest) = rest.split_once(' ').expect("a word");
                let (name, value) = rest.split_once(' ').expect("a name");
                if name != current {
                    assert!(
                        families.insert(name.to_owned(), Default::default()).is_none(),
                        "{name} comes twice"
                    );
                    current = name.to_owned();
                }
                match word {
                    "TYPE" => value.clone_into(&mut families.get_mut(name).unwrap().0),
                    "UNIT" => assert!(name.ends_with(&format!("_{value}")), "{name} is not in {value}"),
                    "HELP" => assert!(!value.is_empty()),
                    other => panic!("{other} is no word of a comment"),
                }
                continue;
            }
            let (name, labels, value) = sample(line);
            assert!(seen.insert((name.clone(), labels.clone())), "twice: {line}");
            let (kind, samples) = families.get_mut(&current).expect("a family before its samples");
            let suffix = name.strip_prefix(&current).expect("a sample of the family");
            match kind.as_str() {
                "counter" => assert_eq!(suffix, "_total"),
                "gauge" => assert_eq!(suffix, ""),
                "histogram" => assert!(["_sum", "_count", "_bucket"].contains(&suffix), "{line}"),
                other => panic!("{other} is no type of ours"),
            }
            assert!(kind == "gauge" || value >= 0.0);
            samples.push((suffix.to_owned(), labels, value));
        }
        families
    }

    fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect("the end of the labels")),
            None => (series, ""),
        };
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        let pair = |pair: &str| {
            let (key, value) = pair.split_once("=\"").expect("a label");
            (key.to_owned(), value.strip_suffix('"').expect("the end of a label").to_owned())
        };
        let labels = labels.split(',').filter(|text| !text.is_empty()).map(pair).collect();
        (name.to_owned(), labels, value.parse().expect("a number"))
    }

    fn function(name: &str) -> FunctionMetrics {
        let mut function = FunctionMetrics::default();
        function.name = name.to_owned();
        let mut usage = Usage { cpu_ns: 1_500_000_000, request_bytes: 10, ..Usage::default() };
        usage.calls[Status::Ok as usize] = 3;
        usage.queue = Histogram::of([(0, 1), (9, 1), (BUCKETS - 1, 1)], 2_000_000_000);
        function.workers = vec![usage.clone(), usage];
        function.decided[Status::Overloaded as usize] = 4;
        function
    }

    fn value(page: &Families, family: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        page[family].1.iter().find(|(_, found, _)| *found == labels).expect("the series is there").2
    }

    #[test]
    fn the_page_follows_the_specification() {
        let mut metrics = Metrics::default();
        metrics.functions = vec![function("hello"), function("a.b-c")];
        metrics.others = Some(function(""));
        let page = parse(&page(metrics).unwrap());
        for name in ["hello", "a.b-c", OTHERS] {
            let calls = |status| value(&page, "microfaas_calls", &[("function", name), ("status", status)]);
            assert_eq!((calls("OK"), calls("OVERLOADED")), (6.0, 4.0));
            assert_eq!(value(&page, "microfaas_cpu_seconds", &[("function", name)]), 3.0);
            assert_eq!(value(&page, "microfaas_request_bytes", &[("function", name)]), 20.0);
            for worker in ["0", "1"] {
                let of = |family| value(&page, family, &[("function", name), ("worker", worker)]);
                assert_eq!((of("microfaas_worker_calls"), of("microfaas_worker_cpu_seconds")), (3.0, 1.5));
            }
            let mine =
                page["microfaas_queue_seconds"].1.iter().filter(|(_, labels, _)| labels["function"] == name);
            let of = |suffix| {
                mine.clone().filter(move |(found, ..)| found == suffix).map(|(_, labels, n)| (labels, *n))
            };
            let buckets: Vec<_> = of("_bucket").map(|(labels, n)| (labels["le"].clone(), n)).collect();
            let (ends, counts): (Vec<_>, Vec<_>) = buckets.into_iter().unzip();
            let times: Vec<f64> = ends.iter().map(|end| end.parse().unwrap()).collect();
            assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{ends:?}");
            assert!(counts.is_sorted(), "{counts:?}");
            assert_eq!((ends[0].as_str(), ends.last().map(String::as_str)), ("1.28e-7", Some("+Inf")));
            assert_eq!((counts[0], counts[1], counts[30]), (2.0, 4.0, 4.0));
            assert_eq!(counts.last().copied(), of("_count").next().map(|(_, n)| n));
            assert_eq!(of("_sum").next().map(|(_, n)| n), Some(4.0));
        }
    }

    #[test]
    fn numbers_that_cannot_be_are_written_all_the_same() {
        let mut metrics = Metrics::default();
        let mut lied = function("hello");
        lied.workers[0].calls = [u64::MAX; Status::ALL.len()];
        lied.workers[0].total = Histogram::of((0..BUCKETS).map(|bucket| (bucket, u64::MAX)), u64::MAX);
        metrics.functions = vec![lied];
        let page = parse(&page(metrics).unwrap());
        assert_eq!(page["microfaas_call_seconds"].1.len(), 32 + 2);
    }
}
