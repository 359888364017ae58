//! `bench preempt`: what it costs that any function can be stopped anywhere, and how soon it is stopped.
//!
//! | figure | what is compared with what |
//! | --- | --- |
//! | `tax_*` | hashes per second of one function under a quantum, between two readings of the same code in the same worker with limits of an hour |
//! | `periodic_timer_tax_20us_pct` | the same code in the same way with a signal every 20 us, which is the paper's way, and without |
//! | `call_overhead_ns` | a function entered by the worker's scheduler, and entered bare |
//! | `kill_late_us_*` | CPU time of a call at its end, and its budget |
//! | `timer_floor_us_*` | when a plain timer's handler is entered, and when it was due |
//! | `next_call_us_*` | from the alarm's handler that ends a call to the first instruction of the next |
//! | `mix_*` | short calls beside long ones under three policies, and beside none |
//!
//! Everything runs on one worker of one node (`call_overhead_ns`, `timer_floor_us_*`, `next_call_us_*` and the paper's way: the worker's own
//! code in another process on the same core), in rounds, so that what the machine does meanwhile hits all alike.

mod figure;
mod inside;
mod kill;
mod mix;
mod plot;
mod subject;
mod tax;

use std::time::{Duration, Instant};

use super::cores::Cores;
use super::prepare::Checkout;
use super::report::{Aim, Report};
use super::{Args, machine, stopped};
use crate::failure::Failure;
use inside::Inside;
use kill::Kills;
use mix::{Mix, POLICIES};
use subject::{Name, Subject};
use tax::Taxes;

const CRATES: [&str; 2] = ["tests/functions/hashes", "tests/functions/probe"];
/// Longest stretch of one policy of the mixed load.
const STRETCH_MAX: Duration = Duration::from_millis(200);
/// Most comparisons of the tax in a round.
const TAX_TIMES_MAX: u32 = 24;

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let cores = Cores::choose()?;
    let checkout = Checkout::find()?;
    let modules = checkout.modules(&CRATES, "preempt")?;
    let program = checkout.test_program("bench-inside")?;
    let begin = Instant::now();
    let time = Duration::from_secs(args.seconds.into());
    let mut machine = machine::describe();
    machine.insert("load_before".into(), machine::load().into());

    let inside = Inside::run(&program, &modules, cores.worker, time.as_secs_f64() / 6.0)?;
    let subject = Subject::start(modules)?;
    cores.pin_host()?;
    let long_count = tax::long_count(&subject)?;
    let (mut taxes, mut kills, mut mix) = (Taxes::default(), Kills::default(), Mix::new(&subject)?);
    let stretch = STRETCH_MAX.min(time / 20);
    let tax_times = args.seconds.clamp(1, TAX_TIMES_MAX);
    let mut longest = Duration::ZERO;
    loop {
        let round = Instant::now();
        taxes.round(&subject, long_count, tax_times)?;
        kills.round(&subject)?;
        mix.round(&subject, stretch)?;
        longest = longest.max(round.elapsed());
        if begin.elapsed() + longest > time {
            break;
        }
    }

    let restarts = subject.node.stats().restarts;
    if restarts > 0 {
        return Err(stopped(format!("the worker was replaced {restarts} times meanwhile")));
    }
    machine.insert("load_after".into(), machine::load().into());
    machine.insert("worker_core".into(), cores.worker.into());
    let on = ["own stack and arena for each call", "statics reset after each call", "answers checked"];
    let mut report = Report::new("preempt", machine, on.map(str::to_owned).into());
    add_taxes(&mut report, &taxes);
    inside.add_to(&mut report)?;
    kills.add_to(&mut report);
    for (i, policy) in POLICIES.iter().enumerate() {
        let n = mix.short[i].len();
        let [p50, p99, window_p99] = policy.keys;
        report.add(p50, mix.quantile_us(i, 0.5), n);
        report.add(p99, mix.quantile_us(i, 0.99), n);
        report.add(window_p99, mix.windows[i].median(), mix.windows[i].n());
    }
    report.add("mix_generator_late_us_p99", mix.late_us(0.99), mix.late_n());
    report.add("mix_short_killed", mix.killed(), mix.short[1].len() + mix.short[4].len());
    report.more = mix.table();
    report.aims = aims(&taxes, &inside, &kills, &mix);
    if let Some(file) = &args.plot {
        plot::draw(&mix, file)?;
    }
    report.print(args.json)
}

/// The tax at a quantum is the larger of its two variants.
fn add_taxes(report: &mut Report, taxes: &Taxes) {
    const KEYS: [[&str; 5]; 3] = [
        [
            "tax_20us_pct",
            "tax_20us_long_pct",
            "tax_20us_long_pct_p99",
            "tax_20us_calls_pct",
            "tax_20us_calls_pct_p99",
        ],
        [
            "tax_100us_pct",
            "tax_100us_long_pct",
            "tax_100us_long_pct_p99",
            "tax_100us_calls_pct",
            "tax_100us_calls_pct_p99",
        ],
        [
            "tax_1ms_pct",
            "tax_1ms_long_pct",
            "tax_1ms_long_pct_p99",
            "tax_1ms_calls_pct",
            "tax_1ms_calls_pct_p99",
        ],
    ];
    for (i, [both, long_p50, long_p99, calls_p50, calls_p99]) in KEYS.into_iter().enumerate() {
        let (long, calls) = (&taxes.long[i], &taxes.calls[i]);
        report.add(both, tax(taxes, i), long.n() + calls.n());
        for (key, figure, quantile) in
            [(long_p50, long, 0.5), (long_p99, long, 0.99), (calls_p50, calls, 0.5), (calls_p99, calls, 0.99)]
        {
            report.add(key, figure.quantile(quantile), figure.n());
        }
    }
    report.add("calls_per_s_off", taxes.rate_off.median(), taxes.rate_off.n());
}

fn tax(taxes: &Taxes, quantum: usize) -> f64 {
    taxes.long[quantum].median().max(taxes.calls[quantum].median())
}

fn aims(taxes: &Taxes, inside: &Inside, kills: &Kills, mix: &Mix) -> Vec<Aim> {
    let mut aims = Vec::new();
    let mut at_most = |what: &str, value: f64, most: f64, unit: &str| {
        aims.push(Aim { text: format!("{what} at most {most} {unit}: {value:.2}"), met: value <= most });
    };
    for (i, quantum) in ["20 us", "100 us", "1 ms"].into_iter().enumerate() {
        at_most(&format!("tax at a quantum of {quantum}"), tax(taxes, i), 1.0, "%");
    }
    at_most("reset, stack and arena of a call", inside.median("call_overhead_ns"), 60.0, "ns");
    at_most("median lateness of a kill", kills.late_us(0.5), 30.0, "us");
    at_most("p99 of it", kills.late_us(0.99), 100.0, "us");
    at_most("next call after an alarm", inside.median("next_call_us"), 10.0, "us");
    let quantum_us = subject::float(Name::Mixed100us.quantum_ns()) / 1e3;
    at_most(
        "p99 of short calls beside long ones, share, window of 100 ms,",
        mix.windows[0].median(),
        quantum_us + 150.0,
        "us",
    );
    aims
}
