//! What `microfaas bench preempt` cannot see from outside a worker, measured inside one: the worker's own scheduler on this thread.
//! Prints one JSON object: for each figure how many, the median and the 99th percentile.
//!
//! usage: bench-inside HASHES.so PROBE.so CORE SECONDS

mod overhead;
mod periodic;
mod signals;

use std::path::PathBuf;
use std::time::Duration;

use microfaas_e2e::inside::Inside;
use microfaas_sys::affinity;

/// Single measurements of one thing.
#[derive(Debug, Default)]
struct Figure(Vec<f64>);

impl Figure {
    fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    fn quantile(&mut self, quantile: f64) -> f64 {
        self.0.sort_by(f64::total_cmp);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index of the list")]
        let index = (self.0.len() as f64 * quantile) as usize;
        self.0.get(index.min(self.0.len().saturating_sub(1))).copied().unwrap_or(0.0)
    }

    fn json(&mut self, name: &str) -> String {
        let (p50, p99) = (self.quantile(0.5), self.quantile(0.99));
        format!("\"{name}\":{{\"n\":{},\"p50\":{p50:.3},\"p99\":{p99:.3}}}", self.0.len())
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [hashes, probe, core, seconds] = args.as_slice() else {
        eprintln!("usage: bench-inside HASHES.so PROBE.so CORE SECONDS");
        std::process::exit(2);
    };
    let (hashes, probe) = (PathBuf::from(hashes), PathBuf::from(probe));
    let (Ok(core), Ok(seconds)) = (core.parse(), seconds.parse::<f64>()) else {
        eprintln!("CORE and SECONDS are numbers");
        std::process::exit(2);
    };
    if let Err(error) = affinity::pin_to(core) {
        eprintln!("cannot go to core {core}: {error}");
        std::process::exit(1);
    }
    let mut inside = Inside::new(4).expect("handlers, a timer and memory, which every process gets");
    let each = Duration::from_secs_f64(seconds / 4.0);
    let mut figures = [
        ("call_overhead_ns", overhead::measure(&mut inside, &probe, each)),
        ("timer_floor_us", signals::timer_floor(&inside.clock(), each)),
        ("periodic_timer_tax_20us_pct", periodic::measure(&mut inside, &hashes, each)),
        ("next_call_us", signals::next_call(&mut inside, &hashes, each)),
    ];
    let figures: Vec<String> = figures.iter_mut().map(|(name, figure)| figure.json(name)).collect();
    #[expect(clippy::print_stdout, reason = "the report")]
    {
        println!("{{{}}}", figures.join(","));
    }
}
