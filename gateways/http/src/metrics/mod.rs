//! A node's metrics as a page of text for Prometheus, in the OpenMetrics form.

#[cfg(test)]
mod openmetrics;
mod workers;

use std::fmt;

use microfaas_node::{BUCKETS, FunctionMetrics, Histogram, Metrics, Status, Usage, lower_bound_ns};
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
        let totals: Vec<(&str, Usage)> =
            named(metrics).map(|(name, function)| (name, function.total())).collect();
        functions(&mut encoder, &totals)?;
        workers::shares(&mut encoder, metrics)?;
        workers::workers(&mut encoder, metrics)?;
        hosts(&mut encoder, metrics)?;
        node(&mut encoder, metrics)
    }
}

/// Each function with its name, and at the end those that are not counted apart.
fn named(metrics: &Metrics) -> impl Iterator<Item = (&str, &FunctionMetrics)> {
    let named = metrics.functions.iter().map(|function| (function.name.as_str(), function));
    named.chain(metrics.others.iter().map(|others| (OTHERS, others)))
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

fn hosts(encoder: &mut DescriptorEncoder, metrics: &Metrics) -> fmt::Result {
    let help = "Hosts that are attached";
    let mut hosts = encoder.encode_descriptor("microfaas_hosts", help, None, MetricType::Gauge)?;
    hosts.encode_gauge(&(metrics.hosts.len() as u64))
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
    use super::openmetrics::{Families, parse};
    use super::*;

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
