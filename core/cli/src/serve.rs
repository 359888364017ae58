//! `serve`: workers, modules, a gateway, until a signal.

use std::io::Write;
use std::sync::{Arc, Weak};
use std::time::Duration;

use microfaas_http::{Config, Gateway, listen};
use microfaas_node::{Node, Outcome};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::args::{Serve, Sources};
use crate::config::{HttpSettings, Settings};
use crate::failure::Failure;
use crate::{launch, log, notify};

const LISTEN: &str = "127.0.0.1:8080";
/// What a function's metadata may take of a large slot.
const META_BYTES: usize = 32 << 10;
/// For workers to end once no request is left.
const NODE_STOP: Duration = Duration::from_secs(2);

pub(crate) fn run(args: Serve) -> Result<(), Failure> {
    log::start(args.log)?;
    let mut settings = launch::settings(&args.sources)?;
    settings.node.workers = args.workers.or(settings.node.workers);
    settings.http.listen = args.http.or(settings.http.listen);
    if let Some(path) = args.socket {
        settings.socket.get_or_insert_default().path = path;
    }
    let runtime = runtime(settings.http.threads.unwrap_or(1)).map_err(Failure::Runtime)?;
    runtime.block_on(serve(settings, args.sources))
}

/// One thread runs in place, so that a machine of two cores has one for the gateway and one for a worker.
fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    match threads {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        n => tokio::runtime::Builder::new_multi_thread().worker_threads(n).enable_all().build(),
    }
}

async fn serve(settings: Settings, sources: Sources) -> Result<(), Failure> {
    // Both before anything is started: no signal is missed, and a busy port is known.
    let signals = Signals::new().map_err(Failure::Runtime)?;
    let hangups = signal(SignalKind::hangup()).map_err(Failure::Runtime)?;
    let address = match &settings.socket {
        Some(_) => settings.http.listen.as_deref(),
        None => Some(settings.http.listen.as_deref().unwrap_or(LISTEN)),
    };
    let listener = match address {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let node = Arc::new(launch::node(&settings)?);
    let new_gateway = |listener| Gateway::new(listener, gateway_config(&settings), Arc::clone(&node));
    let gateway = listener.map(new_gateway).transpose()?;
    announce(&node, &settings, gateway.as_ref());
    notify::ready(&node);
    let watched = tokio::spawn(notify::keep_alive(Arc::clone(&node)));

    let (first, stop) = tokio::sync::oneshot::channel();
    tokio::spawn(signals.watch(first));
    tokio::spawn(reload_on(hangups, Arc::downgrade(&node), Arc::new(sources)));
    let stopped = async {
        // The sender lives until it has sent.
        let _ = stop.await;
    };
    match gateway {
        Some(gateway) => {
            gateway.serve(stopped).await;
        }
        None => stopped.await,
    }
    watched.abort();
    // Another thread, so that a second signal is still heard.
    let stopping = tokio::task::spawn_blocking(move || node.shutdown(NODE_STOP));
    if let Err(error) = stopping.await {
        tracing::warn!(%error, "the node did not stop in order");
    }
    Ok(())
}

fn announce(node: &Node, settings: &Settings, gateway: Option<&Gateway<Node>>) {
    let mut text = String::new();
    for function in node.functions() {
        text.push_str(&format!("function {} ({})\n", function.name, function.module.display()));
    }
    if let Some(socket) = &settings.socket {
        text.push_str(&format!("hosts attach at {}\n", socket.path.display()));
    }
    if let Some(gateway) = gateway {
        text.push_str(&format!("listening on http://{}\n", gateway.local_addr()));
    }
    text.push_str("ready\n");
    // A closed standard output is no reason not to serve.
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn gateway_config(settings: &Settings) -> Config {
    let http = &settings.http;
    let HttpSettings {
        body_limit,
        bodies_limit,
        head_limit,
        max_connections,
        head_timeout,
        body_timeout,
        ..
    } = *http;
    let HttpSettings { stop_timeout, max_deadline, access_log, expose_panics, .. } = *http;
    let default = Config::default();
    let slot = settings.node.large_bytes.map(|bytes| (bytes as usize).saturating_sub(META_BYTES));
    let body_bytes_max = body_limit.or(slot).unwrap_or(default.body_bytes_max);
    Config {
        body_bytes_max,
        // A limit for one that was raised raises that for all.
        bodies_bytes_max: bodies_limit.unwrap_or(default.bodies_bytes_max.max(body_bytes_max)),
        head_bytes_max: head_limit.unwrap_or(default.head_bytes_max),
        connections_max: max_connections.unwrap_or(default.connections_max),
        head_timeout: head_timeout.unwrap_or(default.head_timeout),
        body_timeout: body_timeout.unwrap_or(default.body_timeout),
        stop_timeout: stop_timeout.unwrap_or(default.stop_timeout),
        deadline_max: max_deadline.unwrap_or(default.deadline_max),
        access_log: access_log.unwrap_or(default.access_log),
        metrics_path: http.metrics.clone().unwrap_or(default.metrics_path),
        expose_panics: expose_panics.unwrap_or(default.expose_panics),
        routes: http.routes.iter().map(|(route, _)| route.clone()).collect(),
    }
}

/// Reads settings and modules again at each SIGHUP.
async fn reload_on(mut hangups: Signal, node: Weak<Node>, sources: Arc<Sources>) {
    while hangups.recv().await.is_some() {
        let Some(node) = node.upgrade() else { return };
        let sources = Arc::clone(&sources);
        let reloading = tokio::task::spawn_blocking(move || reload(&node, &sources));
        if let Err(error) = reloading.await {
            tracing::error!(%error, "the reload did not end in order");
        }
    }
}

fn reload(node: &Node, sources: &Sources) {
    notify::reloading();
    match launch::reload(node, sources) {
        Ok(done) => {
            let changed = done.modules.iter().filter(|module| module.outcome != Outcome::Unchanged).count();
            tracing::info!(changed, took_us = done.took_us, "reloaded");
        }
        Err(error) => tracing::error!(%error, "reload refused, all is as it was"),
    }
    notify::ready(node);
}

/// The two signals that ask a server to end.
#[derive(Debug)]
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next one's number.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
        }
    }

    /// Passes on the first; the second ends the process, as a shell would report it.
    async fn watch(mut self, first: tokio::sync::oneshot::Sender<()>) {
        self.next().await;
        tracing::info!("stopping; a second signal ends at once");
        notify::stopping();
        let _ = first.send(());
        let number = self.next().await;
        std::process::exit(128 + number);
    }
}
