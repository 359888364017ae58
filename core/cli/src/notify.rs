//! What the service manager is told, where there is one (`sd_notify(3)`): without it, nothing happens.

use std::sync::Arc;
use std::time::Duration;

use microfaas_node::Node;
use sd_notify::NotifyState;

/// Requests are taken.
pub(crate) fn ready(node: &Node) {
    let (functions, workers) = (node.functions().len(), node.workers().len());
    let status = format!("serving {functions} functions with {workers} workers");
    say(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// Settings and modules are read again; [`ready`] says when that is over.
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

/// Says that all is well twice in each period of the manager's watchdog, where it has one: that this runtime turns, and that the node can be looked at.
pub(crate) async fn keep_alive(node: Arc<Node>) {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    let mut tick = tokio::time::interval(period.max(Duration::from_millis(2)) / 2);
    loop {
        tick.tick().await;
        if !node.workers().is_empty() {
            say(&[NotifyState::Watchdog]);
        }
    }
}

fn say(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
