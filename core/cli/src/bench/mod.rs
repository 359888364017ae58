//! `microfaas bench NAME`: each benchmark is a module here and a row of [`BENCHES`].

mod attacks;
mod chaos;
mod cores;
mod machine;
mod preempt;
mod prepare;
mod report;
mod rivals;
mod runaway;
mod samples;
mod suite;
mod warm;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::failure::{Failure, report};
use crate::progress;

/// One benchmark: its name, what it measures, and how to run it.
struct Bench {
    name: &'static str,
    about: &'static str,
    run: fn(&Args) -> Result<(), Failure>,
}

const BENCHES: &[Bench] = &[
    Bench { name: "warm", about: "round trips and rates of a warm function", run: warm::run },
    Bench {
        name: "preempt",
        about: "what stopping functions costs, and how soon they stop",
        run: preempt::run,
    },
    Bench { name: "attacks", about: "hostile functions, and what becomes of them", run: attacks::run },
    Bench {
        name: "chaos",
        about: "what is killed and replaced under load, and what it costs",
        run: chaos::run,
    },
    Bench { name: "runaway", about: "requests beside an endless one over HTTP", run: runaway::run },
];

/// Arguments of `microfaas bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which benchmark
    pub(crate) name: String,
    /// Print one JSON object and nothing else on the standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// About how long it may take, in seconds
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) seconds: u32,
    /// Run `chaos`'s random mix for this many minutes, beside the experiments
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1440))]
    pub(crate) minutes: Option<u32>,
    /// Draw the latencies of `preempt`'s mixed load into this file, as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}

/// Runs one benchmark.
pub(crate) fn run(args: &Args) -> ExitCode {
    let Some(bench) = BENCHES.iter().find(|bench| bench.name == args.name) else {
        let names =
            BENCHES.iter().map(|b| format!("{} ({})", b.name, b.about)).collect::<Vec<_>>().join(", ");
        return report(&Failure::UnknownBench { name: args.name.clone(), names });
    };
    if args.plot.is_some() && bench.name != "preempt" {
        return report(&Failure::BenchUsage("--plot is for `preempt`"));
    }
    if args.minutes.is_some() && bench.name != "chaos" {
        return report(&Failure::BenchUsage("--minutes is for `chaos`"));
    }
    progress::begin(format!("{}: {}", bench.name, bench.about));
    match (bench.run)(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

pub(crate) const HELP: &str = "\
Benchmarks:
  warm     round trips and rates of a warm function
  preempt  what stopping functions costs, and how soon they stop
  attacks  hostile functions, and what becomes of them
  chaos    what is killed and replaced under load, and what it costs
  runaway  requests beside an endless one over HTTP

  Some build what they need from a checkout of the project first. Exits with 1 where something that is promised does not hold: of `attacks` and `chaos`, a line on the standard
  error says what, why and how to try it again, and so does `failed` of the JSON.

Examples:
  microfaas bench warm --seconds 10
  microfaas bench preempt --plot latency.svg
  microfaas bench chaos --minutes 60 --json";

/// Why a benchmark cannot go on: said in full by whoever finds it.
fn stopped(why: impl std::fmt::Display) -> Failure {
    Failure::Bench(why.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_has_every_benchmark() {
        for bench in BENCHES {
            assert!(HELP.contains(&format!("  {:<9}{}\n", bench.name, bench.about)), "{}", bench.name);
        }
    }
}
