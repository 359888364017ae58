//! SIGHUP: settings and modules are read again.

use std::sync::{Arc, Weak};

use microfaas_node::{Node, Outcome};
use tokio::signal::unix::Signal;

use crate::args::Sources;
use crate::config::Settings;
use crate::{launch, notify};

/// Reads settings and modules again at each SIGHUP. `started` are the settings that the node was started with.
pub(super) async fn on(mut hangups: Signal, node: Weak<Node>, sources: Arc<Sources>, started: Arc<Settings>) {
    while hangups.recv().await.is_some() {
        let Some(node) = node.upgrade() else { return };
        let (sources, started) = (Arc::clone(&sources), Arc::clone(&started));
        let reloading = tokio::task::spawn_blocking(move || reload(&node, &sources, &started));
        if let Err(error) = reloading.await {
            tracing::error!(%error, "the reload did not end in order");
        }
    }
}

fn reload(node: &Node, sources: &Sources, started: &Settings) {
    notify::reloading();
    match launch::reload(node, sources, started) {
        Ok((done, settings)) => {
            let changed = done.modules.iter().filter(|module| module.outcome != Outcome::Unchanged).count();
            tracing::info!(changed, took_us = done.took_us, "reloaded");
            let keys = settings.waiting_for_restart(started);
            if !keys.is_empty() {
                let keys = keys.join(", ");
                tracing::warn!(keys, "settings have changed that hold only after a restart");
            }
            if let Some(socket) = settings.socket_that_stays(started) {
                tracing::warn!(
                    socket = %socket.display(),
                    "the settings have no [socket] any more: the socket stays until a restart, and only the node's own user and root may attach"
                );
            }
        }
        Err(error) => {
            tracing::error!(%error, "reload refused, all is as it was");
            // A line each is what the manager takes.
            return notify::not_reloaded(&error.to_string().lines().collect::<Vec<_>>().join(" "));
        }
    }
    notify::ready(node);
}
