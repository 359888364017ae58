//! One run of one experiment: its seed, its time, what it found.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use fastrand::Rng;
use microfaas_node::{DeployError, NodeError};
use serde::{Deserialize, Serialize};

use crate::ledger::Counts;
use crate::log::{self, BYTES_PER_EVENT};
use crate::modules::Modules;

/// Why an experiment did not run to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Stop {
    /// This machine does not let it run, or there is nothing for it to look at.
    #[error("skipped: {0}")]
    Skip(String),
    /// A node that had to start did not.
    #[error("no node: {0}")]
    Node(#[from] NodeError),
    /// A deployment that had to succeed did not.
    #[error("not deployed: {0}")]
    Deploy(#[from] DeployError),
    /// The system refused something that the experiment needs.
    #[error("system: {0}")]
    System(#[from] std::io::Error),
    /// A system call that the experiment needs.
    #[error("system: {0}")]
    Call(#[from] nix::errno::Errno),
    /// Something that others rely on did not come about.
    #[error("{0}")]
    Failed(String),
}

/// What came of an experiment: one line of JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// Its name.
    pub experiment: String,
    /// With which it can be run again.
    pub seed: u64,
    /// How long it took.
    pub ms: u64,
    /// Why it did not run.
    pub skipped: Option<String>,
    /// What does not hold; nothing where all is well.
    pub problems: Vec<String>,
    /// What the oracle counted.
    pub counts: Counts,
    /// What was measured; informational.
    pub figures: BTreeMap<String, f64>,
    /// What was measured several times; informational.
    pub samples: BTreeMap<String, Vec<f64>>,
    /// How often workers were replaced, by cause.
    #[serde(default)]
    pub restarts: BTreeMap<String, u64>,
    /// Things that were done to the node: it may log so much for each.
    #[serde(default)]
    pub events: u64,
    /// Bytes that were logged.
    #[serde(default)]
    pub logged: u64,
    /// Milliseconds from the SIGKILL of a worker until a spare served in its place.
    pub replace_ms: Vec<f64>,
    /// The same where no spare was ready.
    pub replace_started_ms: Vec<f64>,
}

impl Verdict {
    /// Whether everything holds, or it was skipped.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Trial {
    /// With which it can be run again.
    pub seed: u64,
    /// Where all its chance comes from.
    pub random: Rng,
    /// About how long it may take, waits for what must come apart.
    pub time: Duration,
    /// What it can deploy.
    pub modules: Modules,
    /// The folder that they were read from, for processes that it starts.
    pub folder: PathBuf,
    /// What it found.
    pub verdict: Verdict,
    began: Instant,
    /// See [`is_over`](Self::is_over).
    clock: OnceLock<Instant>,
}

impl Trial {
    /// A new one.
    #[must_use]
    pub fn new(experiment: &str, seed: u64, time: Duration, modules: Modules, folder: PathBuf) -> Self {
        let verdict = Verdict { experiment: experiment.to_owned(), seed, ..Verdict::default() };
        let (random, began) = (Rng::with_seed(seed), Instant::now());
        Self { seed, random, time, modules, folder, verdict, began, clock: OnceLock::new() }
    }

    /// Notes a problem where something is not so.
    pub fn expect(&mut self, is_so: bool, what: impl FnOnce() -> String) {
        if !is_so {
            self.verdict.problems.push(what());
        }
    }

    /// Notes a measurement.
    pub fn figure(&mut self, name: &str, value: f64) {
        self.verdict.figures.insert(name.to_owned(), value);
    }

    /// Notes one of several measurements of the same.
    pub fn sample(&mut self, name: &str, value: f64) {
        self.verdict.samples.entry(name.to_owned()).or_default().push(value);
    }

    /// Notes that something was done to the node: for which it may log something.
    pub fn event(&mut self) {
        self.verdict.events += 1;
    }

    /// Whether this part of its time, from 0 to 1, is over. It begins when this is first asked, which is after the first node has started where there is one: what
    /// an experiment does, it does on a slow machine too.
    #[must_use]
    pub fn is_over(&self, part: f64) -> bool {
        let mut is_first = false;
        let clock = self.clock.get_or_init(|| {
            is_first = true;
            Instant::now()
        });
        !is_first && clock.elapsed() >= self.time.mul_f64(part)
    }

    /// A time in this range, by chance.
    #[must_use]
    pub fn some_time(&mut self, max: Duration) -> Duration {
        max.mul_f64(self.random.f64())
    }

    /// What it came to.
    #[must_use]
    pub fn end(mut self, outcome: Result<(), Stop>) -> Verdict {
        match outcome {
            Ok(()) => {}
            Err(Stop::Skip(why)) => self.verdict.skipped = Some(why),
            Err(stop) => self.verdict.problems.push(stop.to_string()),
        }
        // To start and to stop are one more.
        let (logged, events) = (log::bytes(), self.verdict.events + 1);
        let is_done = events > 1 || self.verdict.skipped.is_some() || !self.verdict.problems.is_empty();
        self.expect(is_done, || "nothing was done".to_owned());
        self.verdict.logged = logged;
        self.expect(logged <= events * BYTES_PER_EVENT, || {
            format!("{logged} bytes were logged of {events} events")
        });
        self.verdict.ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.verdict
    }
}
