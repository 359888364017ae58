//! What the service manager is told, where there is one (`sd_notify(3)`): without it, nothing happens.

use std::sync::Arc;
use std::time::Duration;

use microfaas_node::Node;
use sd_notify::NotifyState;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

/// How often it is looked whether the node still lives, at least.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long the manager may take to read what it is told, when it is waited for.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// Requests are taken.
pub(crate) fn ready(node: &Node) {
    let (functions, workers) = (node.functions().len(), node.workers().len());
    let status = format!("serving {functions} functions with {workers} workers");
    say(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// As [`ready`], after a reload that was refused: whoever looks at the service sees why.
pub(crate) fn not_reloaded(why: &str) {
    let status = format!("serving as before, the reload was refused: {why}");
    say(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// Settings and modules are read again; [`ready`] or [`not_reloaded`] says when that is over.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "the service manager cannot be told"),
    }
}

/// No more requests are taken; those in flight are finished.
pub(crate) fn stopping() {
    say(&[NotifyState::Stopping, NotifyState::Status("finishing what is in flight")]);
}

/// Tells it on another thread, and waits for that for a second at most: a manager that does not read holds up whoever tells it something, and that is not to be the gateway's
/// only thread.
pub(crate) async fn apart(tell: impl FnOnce() + Send + 'static) {
    let _ = timeout(READ_WITHIN, spawn_blocking(tell)).await;
}

/// Says that all is well twice in each period of the manager's watchdog, where it has one: that this runtime turns, and that the thread does that watches the workers.
/// Returns where the node has ended.
pub(crate) async fn keep_alive(node: Arc<Node>) {
    let watchdog = sd_notify::watchdog_enabled();
    let every =
        watchdog.map_or(LOOK_EVERY, |period| (period / 2).clamp(Duration::from_millis(1), LOOK_EVERY));
    let mut tick = tokio::time::interval(every);
    let (mut before, mut telling) = (None, None::<JoinHandle<()>>);
    while !node.is_over() {
        if watchdog.is_some() {
            // It was asked to come round at the last look.
            let rounds = Some(node.rounds());
            if std::mem::replace(&mut before, rounds) != rounds
                && telling.as_ref().is_none_or(JoinHandle::is_finished)
            {
                telling = Some(spawn_blocking(|| say(&[NotifyState::Watchdog])));
            }
        }
        tick.tick().await;
    }
}

fn say(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
