//! What a node says of its calls and its workers, against what those know who called and who killed (invariants I4 and I8).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use microfaas_node::{Completion, FunctionStats, Node, NodeStats, RestartCause, Status};

use crate::ledger::Ledger;

const STATUSES: usize = Status::ALL.len();

/// Calls beside those of the loads, each of which was waited for or taken back.
#[derive(Debug, Default)]
pub struct Aside {
    ended: [AtomicU64; STATUSES],
    refused: AtomicU64,
    in_doubt: AtomicU64,
    hung_up: AtomicU64,
}

impl Aside {
    /// Notes how one has ended. One that no worker ever had was refused.
    pub fn enter(&self, completion: &Completion) {
        let counter = match completion.worker {
            Some(_) => &self.ended[completion.status as usize],
            None => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes one that was refused.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes one whose function was not there, or went while the call was made: a node counts what has to do with a function that it has.
    pub fn doubt(&self) {
        self.in_doubt.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes one that was taken back.
    pub fn hang_up(&self) {
        self.hung_up.fetch_add(1, Ordering::Relaxed);
    }
}

/// What callers know.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Calls that were accepted.
    pub accepted: u64,
    /// Those of them that ended while their callers waited, by status.
    pub ended: [u64; STATUSES],
    /// Those whose callers took them back.
    pub hung_up: u64,
    /// Calls that were not accepted.
    pub refused: u64,
    /// Others, which the node may have counted as not found.
    pub in_doubt: u64,
}

impl Known {
    /// Adds the calls of a load, which is over.
    pub fn add(&mut self, ledger: &Ledger) {
        let counts = ledger.counts();
        self.accepted += counts.accepted;
        self.hung_up += counts.hung_up;
        self.refused += counts.refused;
        for (to, status) in self.ended.iter_mut().zip(Status::ALL) {
            *to += ledger.outcomes(status);
        }
    }

    /// Adds others.
    pub fn add_aside(&mut self, aside: &Aside) {
        self.refused += aside.refused.load(Ordering::Relaxed);
        self.in_doubt += aside.in_doubt.load(Ordering::Relaxed);
        let hung_up = aside.hung_up.load(Ordering::Relaxed);
        self.hung_up += hung_up;
        self.accepted += hung_up;
        for (to, from) in self.ended.iter_mut().zip(&aside.ended) {
            let ended = from.load(Ordering::Relaxed);
            *to += ended;
            self.accepted += ended;
        }
    }

    /// Calls whose callers were gone when they ended: how, only the node knows.
    fn unseen(&self) -> u64 {
        self.hung_up + self.ended[Status::Timeout as usize] + self.ended[Status::Expired as usize]
    }
}

/// What a node has counted.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// Calls of its own host that were accepted.
    pub accepted: u64,
    /// Those of them that ended OK while somebody waited.
    pub ok: u64,
    /// As exported: calls of all hosts and refusals of its own, by status.
    pub exported: [u64; STATUSES],
    /// Workers that have ended and were replaced.
    pub restarts: u64,
}

impl Said {
    /// All so far.
    #[must_use]
    pub fn by(node: &Node) -> Self {
        let metrics = node.metrics();
        let stats = &metrics.stats;
        Self {
            accepted: stats.accepted(),
            ok: stats.completed(Status::Ok),
            restarts: stats.restarts,
            exported: exported(&metrics.report()),
        }
    }

    /// Where it does not agree with what callers know. With `guests`, other hosts have called it, too: then only what is missing is found. A worker may have answered
    /// one call, the last of its life, that it had no time to count.
    #[must_use]
    pub fn differs(&self, known: &Known, guests: bool) -> Vec<String> {
        let mut found = Vec::new();
        if self.accepted != known.accepted {
            found.push(format!(
                "the node counts {} accepted calls, their callers {}",
                self.accepted, known.accepted
            ));
        }
        let ok = known.ended[Status::Ok as usize];
        if !(ok..=ok + known.unseen()).contains(&self.ok) {
            found.push(format!("the node counts {} calls that ended OK, their callers {ok}", self.ok));
        }
        let all = known.accepted + known.refused;
        let mut check = |what: &str, exported: u64, known: u64, unseen: u64| {
            let most = if guests { u64::MAX } else { known + unseen };
            if !(known.saturating_sub(self.restarts)..=most).contains(&exported) {
                found.push(format!("the node exports {exported} {what}, callers know of {known}"));
            }
        };
        check("calls and refusals", self.exported.iter().sum(), all, known.in_doubt);
        for status in Status::ALL {
            let i = status as usize;
            match status {
                // What became of them is for the worker to say, who may not have known that it was too late.
                Status::Timeout | Status::Expired | Status::Cancelled => {}
                Status::Overloaded => {
                    check(status.name(), self.exported[i], known.ended[i] + known.refused, known.unseen());
                }
                Status::NotFound => {
                    check(status.name(), self.exported[i], known.ended[i], known.unseen() + known.in_doubt);
                }
                _ => check(status.name(), self.exported[i], known.ended[i], known.unseen()),
            }
        }
        found
    }
}

fn exported(report: &NodeStats) -> [u64; STATUSES] {
    let functions = || report.functions.iter().chain(&report.others);
    let of = |function: &FunctionStats, status: Status| function.calls.get(status.name()).copied();
    Status::ALL.map(|status| functions().filter_map(|function| of(function, status)).sum())
}

/// Why the workers of a node were replaced, as exported; and what does not hold: each is counted once, with a cause that may be (`may`), and each process of a place but the first is
/// there because another has ended.
#[must_use]
pub fn restarts(node: &Node, may: &[RestartCause]) -> (BTreeMap<String, u64>, Vec<String>) {
    let (metrics, mut found) = (node.metrics(), Vec::new());
    let mut by_cause = BTreeMap::new();
    for (info, said) in metrics.workers.iter().map(|worker| worker.info).zip(metrics.report().workers) {
        let causes: u64 = said.restarts.values().sum();
        if causes != u64::from(info.restarts) || info.generation > info.restarts + 1 {
            found.push(format!("worker {}: {info:?}, restarts by cause: {:?}", info.index, said.restarts));
        }
        for (cause, times) in said.restarts.into_iter().filter(|(_, times)| *times > 0) {
            if !may.iter().any(|may| may.name() == cause) {
                found.push(format!("worker {} was replaced {times} times: {cause}", info.index));
            }
            *by_cause.entry(cause).or_default() += times;
        }
    }
    (by_cause, found)
}
