//! `bench warm`: what a call of a function that is loaded costs, beside the floor (one line to another core and back) and other transports.
//!
//! Everything is measured in rounds, with the ping-pong between any two figures. On virtual machines the two cores are near or far and
//! change within seconds: a figure counts for the distance that the ping-pongs on both sides of it agree on, and the report is
//! about the distance that was seen more often.

mod measure;

use std::time::{Duration, Instant};

use microfaas_node::{LayerState, Node};
use microfaas_sys::clock::CycleClock;

use super::cores::{Cores, Distance};
use super::prepare::Checkout;
use super::report::{Aim, Report};
use super::rivals::Rivals;
use super::samples::Samples;
use super::{Args, machine, stopped};
use crate::failure::Failure;
use measure::Subject;

/// Payload of a ping-pong and of a small call.
const LINE_BYTES: usize = 8;
const SMALL_BYTES: usize = 64;
const ROUND_TRIPS: [usize; 4] = [0, SMALL_BYTES, 1024, 65_536];
const WIDTHS: [usize; 3] = [1, 8, 64];

/// All figures.
#[derive(Debug, Default)]
struct Figures {
    pingpong: Samples,
    round_trips: [Samples; 4],
    rates: [Samples; 3],
    wake: Samples,
    uds: Samples,
    iceoryx2: Samples,
    rival_clock_ns: f64,
    idle: Vec<f64>,
}

/// How long each thing is measured in a round.
#[derive(Debug, Clone, Copy)]
struct Times {
    pingpong: f64,
    figure: Duration,
    idle: Duration,
}

impl Times {
    /// Short enough for a few rounds in that many seconds.
    fn new(seconds: u32) -> Self {
        let figure = (f64::from(seconds) / 60.0).min(0.06);
        Self { pingpong: figure / 3.0, figure: Duration::from_secs_f64(figure), idle: Duration::from_secs(1) }
    }
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let cores = Cores::choose()?;
    let checkout = Checkout::find()?;
    let rivals = Rivals::build(&checkout, cores)?;
    let modules = checkout.functions()?;
    let begin = Instant::now();
    let mut machine = machine::describe();
    machine.insert("load_before".into(), machine::load().into());

    let node = Node::builder().modules(modules).workers(1).start()?;
    let worker = node.workers().first().copied();
    let pid = worker.and_then(|worker| worker.pid).ok_or_else(|| stopped("the worker is gone"))?;
    let echo = node.function("echo").map_err(stopped)?;
    cores.pin_host()?;
    let clock = CycleClock::calibrate(Duration::from_millis(20));
    let subject = Subject { node, echo, clock, pid };
    let clock_ns = subject.clock_ns();

    let times = Times::new(args.seconds);
    let time = Duration::from_secs(args.seconds.into()).saturating_sub(times.idle);
    let mut figures = Figures::default();
    let mut longest = Duration::ZERO;
    loop {
        let round = Instant::now();
        figures.round(&subject, &rivals, times, clock_ns)?;
        longest = longest.max(round.elapsed());
        if begin.elapsed() + longest > time {
            break;
        }
    }
    figures.idle.push(subject.idle_pct(times.idle)?);

    let restarts = subject.node.stats().restarts;
    if restarts > 0 {
        return Err(stopped(format!("the worker was replaced {restarts} times meanwhile")));
    }
    machine.insert("load_after".into(), machine::load().into());
    machine.insert("caller_core".into(), cores.host.into());
    machine.insert("worker_core".into(), cores.worker.into());
    let mut report = Report::new("warm", machine, switched_on(&subject.node));
    figures.report(&mut report, clock_ns);
    report.print(args.json)
}

/// What of the runtime's checks and layers was in force; nothing of it was switched off for the benchmark.
fn switched_on(node: &Node) -> Vec<String> {
    let mut on: Vec<String> = [
        "typed checks of all that the worker writes",
        "answers compared with requests",
        "answers copied into private memory",
        "deadlines",
        "guarded stack",
        "heap of its own",
        "statics reset after each call",
        "cpu time of each call",
    ]
    .map(str::to_owned)
    .into();
    let limits = node.functions().iter().find(|function| function.name == "echo").map(|f| f.limits);
    on.extend(limits.map(|limits| {
        let (quantum, budget) =
            (Duration::from_nanos(limits.quantum_ns), Duration::from_nanos(limits.budget_ns));
        format!("quantum {quantum:?}, budget {budget:?}")
    }));
    let sandbox = node.sandbox(0).unwrap_or_default();
    let active = sandbox.entries.iter().filter(|entry| entry.state == LayerState::Active);
    on.extend(active.map(|entry| format!("sandbox: {}", entry.layer.describe())));
    on
}

impl Figures {
    /// One round of everything.
    fn round(
        &mut self,
        subject: &Subject,
        rivals: &Rivals,
        times: Times,
        clock_ns: f64,
    ) -> Result<(), Failure> {
        let mut before = self.ping(rivals, times)?;
        for (i, len) in ROUND_TRIPS.into_iter().enumerate() {
            let measured = subject.round_trips(len, times.figure)?;
            let after = self.ping(rivals, times)?;
            self.round_trips[i].add_times(&measured, clock_ns, before, after);
            before = after;
        }
        for (i, width) in WIDTHS.into_iter().enumerate() {
            let (rate, n) = subject.rate(SMALL_BYTES, width, times.figure)?;
            let after = self.ping(rivals, times)?;
            self.rates[i].add(rate, n, before, after);
            before = after;
        }
        let wakes = subject.wakes(times.figure)?;
        let after = self.ping(rivals, times)?;
        self.wake.add_times(&wakes, clock_ns, before, after);
        before = after;
        for (name, samples) in [("uds", &mut self.uds), ("iceoryx2", &mut self.iceoryx2)] {
            let rival = rivals.run(name, SMALL_BYTES, times.figure.as_secs_f64())?;
            let after = rivals.run("pingpong", LINE_BYTES, times.pingpong)?.p50_ns;
            samples.add(rival.p50_ns, rival.n, before, after);
            before = after;
        }
        Ok(())
    }

    fn ping(&mut self, rivals: &Rivals, times: Times) -> Result<f64, Failure> {
        let rival = rivals.run("pingpong", LINE_BYTES, times.pingpong)?;
        self.pingpong.add(rival.p50_ns, rival.n, rival.p50_ns, rival.p50_ns);
        self.rival_clock_ns = rival.clock_ns;
        Ok(rival.p50_ns)
    }

    fn report(&self, report: &mut Report, clock_ns: f64) {
        let rounds = |distance| self.pingpong.rounds(distance);
        let near = rounds(Distance::Near) >= rounds(Distance::Far);
        let at = if near { Distance::Near } else { Distance::Far };
        report.machine.insert("cores_are".into(), at.name().into());
        report.machine.insert("pingpongs_near".into(), rounds(Distance::Near).into());
        report.machine.insert("pingpongs_far".into(), rounds(Distance::Far).into());
        report.machine.insert("rtt_64_rounds".into(), self.round_trips[1].rounds(at).into());

        let mut add = |key, samples: &Samples, scale: f64| {
            report.add(key, samples.median(at) * scale, samples.n(at));
        };
        add("pingpong_ns_p50", &self.pingpong, 1.0);
        add("uds_rtt_ns_p50", &self.uds, 1.0);
        add("iceoryx2_rtt_ns_p50", &self.iceoryx2, 1.0);
        let keys = ["rtt_0_ns_p50", "rtt_64_ns_p50", "rtt_1024_ns_p50", "rtt_65536_ns_p50"];
        for (key, samples) in keys.into_iter().zip(&self.round_trips) {
            add(key, samples, 1.0);
        }
        for (key, samples) in
            ["calls_per_s_w1", "calls_per_s_w8", "calls_per_s_w64"].into_iter().zip(&self.rates)
        {
            add(key, samples, 1.0);
        }
        add("wake_us_p50", &self.wake, 1e-3);
        self.tails(report, at, clock_ns);
        let idle =
            self.idle.iter().sum::<f64>() / f64::from(u32::try_from(self.idle.len()).unwrap_or(1).max(1));
        report.add("idle_worker_cpu_pct", idle, self.idle.len() as u64);
        report.add("clock_ns", clock_ns, 100_000);
        report.add("rival_clock_ns", self.rival_clock_ns, 100_000);
        self.aims(report, at, idle);
    }

    fn tails(&self, report: &mut Report, at: Distance, clock_ns: f64) {
        let keys = [
            ["rtt_0_ns_p99", "rtt_0_ns_p999"],
            ["rtt_64_ns_p99", "rtt_64_ns_p999"],
            ["rtt_1024_ns_p99", "rtt_1024_ns_p999"],
            ["rtt_65536_ns_p99", "rtt_65536_ns_p999"],
        ];
        for (keys, samples) in keys.into_iter().zip(&self.round_trips) {
            for (key, quantile) in keys.into_iter().zip([0.99, 0.999]) {
                report.add(key, samples.quantile(at, quantile, clock_ns), samples.n(at));
            }
        }
        report.add("rtt_64_per_pingpong", self.round_trips[1].ratio(at), self.round_trips[1].n(at));
        report.add("rtt_0_per_pingpong", self.round_trips[0].ratio(at), self.round_trips[0].n(at));
    }

    fn aims(&self, report: &mut Report, at: Distance, idle: f64) {
        let (ratio, rate) = (self.round_trips[1].ratio(at), self.rates[2].median(at) / 1e6);
        report.aims = vec![
            Aim { text: format!("64 B round trip at most 2 ping-pongs: {ratio:.2}"), met: ratio <= 2.0 },
            Aim { text: format!("at least 8 M calls/s at 64 in flight: {rate:.2} M"), met: rate >= 8.0 },
            Aim { text: format!("an idle worker under 0.1 % of a core: {idle:.3} %"), met: idle < 0.1 },
        ];
    }
}
