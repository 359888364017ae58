//! `bench runaway`: one endless call posted to the HTTP gateway, and honest requests beside it. One worker, as `microfaas serve` starts it; the
//! clients are in this process.

mod client;
mod server;

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use hyper::StatusCode;

use super::prepare::Checkout;
use super::report::{Aim, Report};
use super::samples::histogram;
use super::{Args, machine, stopped};
use crate::failure::Failure;
use client::Client;
use server::Server;

const QUANTUM_MS: f64 = 1.0;
const BUDGET_MS: f64 = 1000.0;
/// The functions' limits. Nobody's deadline is near.
const SETTINGS: &str = "\
[node]
deadline = \"30s\"
[function.spin_forever]
quantum = \"1ms\"
budget = \"1s\"
";
/// For the worker to spin after its last call, before its idleness is measured.
const SETTLE: Duration = Duration::from_millis(50);
/// How long its CPU time is looked at.
const IDLE: Duration = Duration::from_secs(1);
const SEED: u64 = 0x6d69_6372_6f66_6161;

/// All episodes together.
#[derive(Debug)]
struct Figures {
    honest_ns: Histogram<u64>,
    failed: u64,
    answered_ms: Vec<f64>,
    cpu_pct: Vec<f64>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let checkout = Checkout::find()?;
    let modules = checkout.functions()?;
    let settings = checkout.folder()?.join("runaway.toml");
    std::fs::write(&settings, SETTINGS)
        .map_err(|e| stopped(format!("{}: cannot write it: {e}", settings.display())))?;
    let mut machine = machine::describe();
    machine.insert("load_before".into(), machine::load().into());
    let server = Server::start(&modules, &settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Failure::Runtime)?;
    let figures = runtime.block_on(measure(&server, Duration::from_secs(args.seconds.into())))?;
    machine.insert("load_after".into(), machine::load().into());

    let on = ["own stack and arena for each call", "budget of 1 s", "quantum of 1 ms", "answers checked"];
    let mut report = Report::new("runaway", machine, on.map(str::to_owned).into());
    figures.report(&mut report);
    report.print(args.json)
}

async fn measure(server: &Server, time: Duration) -> Result<Figures, Failure> {
    let mut figures =
        Figures { honest_ns: histogram(), failed: 0, answered_ms: Vec::new(), cpu_pct: Vec::new() };
    let mut random = fastrand::Rng::with_seed(SEED);
    let begin = Instant::now();
    let mut longest = Duration::ZERO;
    loop {
        let start = Instant::now();
        figures.episode(server, &mut random).await?;
        longest = longest.max(start.elapsed());
        if begin.elapsed() + longest > time {
            return Ok(figures);
        }
    }
}

impl Figures {
    /// One runaway, from its request to the idleness after its answer.
    async fn episode(&mut self, server: &Server, random: &mut fastrand::Rng) -> Result<(), Failure> {
        let mut honest = Client::connect(server.address).await?;
        for number in 0..100u64 {
            let warm_up = number.to_le_bytes().to_vec();
            let (status, body) = honest.post("/fn/echo", warm_up.clone()).await?;
            if (status, &body) != (StatusCode::OK, &warm_up) {
                return Err(stopped(format!("echo answered {status} before the runaway")));
            }
        }
        let mut other = Client::connect(server.address).await?;
        let start = Instant::now();
        let runaway = tokio::spawn(async move { other.post("/fn/spin_forever", Vec::new()).await });
        let mut number = 0u64;
        while !runaway.is_finished() {
            number += 1;
            self.honest(&mut honest, server, number).await?;
            // In bursts, and after pauses in which the runaway has the worker to itself.
            if random.u8(..16) == 0 {
                tokio::time::sleep(Duration::from_micros(random.u64(..20_000))).await;
            }
        }
        let answered = start.elapsed();
        let (status, _) = runaway.await.map_err(stopped)??;
        if status != StatusCode::GATEWAY_TIMEOUT {
            return Err(stopped(format!("the endless call was answered with {status}, not 504")));
        }
        self.answered_ms.push(answered.as_secs_f64() * 1e3);

        tokio::time::sleep(SETTLE).await;
        let cpu_ns = || {
            let pid = server.worker()?;
            machine::cpu_ns(pid)
                .ok_or_else(|| stopped(format!("cannot read the CPU time of the worker (pid {pid})")))
        };
        let (before, start) = (cpu_ns()?, Instant::now());
        tokio::time::sleep(IDLE).await;
        let used = Duration::from_nanos(cpu_ns()?.saturating_sub(before));
        self.cpu_pct.push(100.0 * used.as_secs_f64() / start.elapsed().as_secs_f64());
        Ok(())
    }

    /// One honest request. A wrong answer or none is counted, and the connection made anew.
    async fn honest(&mut self, client: &mut Client, server: &Server, number: u64) -> Result<(), Failure> {
        let body = number.to_le_bytes().repeat(8);
        let start = Instant::now();
        let answer = client.post("/fn/echo", body.clone()).await;
        let spent = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.honest_ns.saturating_record(spent.max(1));
        match answer {
            Ok((StatusCode::OK, answer)) if answer == body => {}
            Ok(_) => self.failed += 1,
            Err(_) => {
                self.failed += 1;
                *client = Client::connect(server.address).await?;
            }
        }
        Ok(())
    }

    fn report(&self, report: &mut Report) {
        let n = self.honest_ns.len();
        let ms =
            |quantile| Duration::from_nanos(self.honest_ns.value_at_quantile(quantile)).as_secs_f64() * 1e3;
        report.add("honest_requests", count(n), n);
        report.add("honest_failed", count(self.failed), n);
        report.add("honest_p50_ms", ms(0.5), n);
        report.add("honest_p99_ms", ms(0.99), n);
        report.add("honest_worst_ms", ms(1.0), n);
        let runaways = self.answered_ms.len() as u64;
        let worst = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
        report.add("runaway_answered_ms", worst(&self.answered_ms), runaways);
        report.add("cpu_pct_after", worst(&self.cpu_pct), runaways);
        let (failed, most, answered) = (self.failed, QUANTUM_MS + 5.0, worst(&self.answered_ms));
        report.aims = vec![
            Aim { text: format!("no honest request fails: {failed} of {n}"), met: failed == 0 },
            Aim {
                text: format!("the worst honest request waits at most quantum + 5 ms: {:.2} ms", ms(1.0)),
                met: ms(1.0) <= most,
            },
            Aim {
                text: format!("the runaway has its answer at its budget of {BUDGET_MS} ms: {answered:.0} ms"),
                met: answered < 1.5 * BUDGET_MS,
            },
        ];
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn count(n: u64) -> f64 {
    n as f64
}
