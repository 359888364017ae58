//! `serve`: workers, modules, a gateway, until a signal.

mod reload;
mod signals;

use std::cell::Cell;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use microfaas_http::{Config, Gateway, listen};
use microfaas_node::Node;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Serve, Sources};
use crate::config::{HttpSettings, Settings};
use crate::failure::Failure;
use crate::{launch, log, notify};
use signals::Signals;

const LISTEN: &str = "127.0.0.1:8080";
/// How long the calls of attached hosts, and what is left of others, may take once the node is told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn run(args: Serve) -> Result<(), Failure> {
    let _log = log::start(args.log)?;
    let mut settings = launch::settings(&args.sources)?;
    settings.node.workers = args.workers.or(settings.node.workers);
    settings.http.listen = args.http.or(settings.http.listen);
    if let Some(path) = args.socket {
        settings.socket.get_or_insert_default().path = path;
    }
    let runtime = runtime(settings.http.threads.unwrap_or(1)).map_err(Failure::Runtime)?;
    let served = runtime.block_on(serve(Arc::new(settings), args.sources));
    // Nobody waits for a start that was given up, or for a reload that a file system holds up.
    runtime.shutdown_background();
    served
}

/// One thread runs in place, so that a machine of two cores has one for the gateway and one for a worker.
fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    match threads {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        n => tokio::runtime::Builder::new_multi_thread().worker_threads(n).enable_all().build(),
    }
}

async fn serve(settings: Arc<Settings>, sources: Sources) -> Result<(), Failure> {
    // Both before anything is started: no signal is missed, and a busy port is known.
    let (first, mut stop) = tokio::sync::oneshot::channel();
    tokio::spawn(Signals::new().map_err(Failure::Runtime)?.watch(first));
    let hangups = signal(SignalKind::hangup()).map_err(Failure::Runtime)?;
    let address = match &settings.socket {
        Some(_) => settings.http.listen.as_deref(),
        None => Some(settings.http.listen.as_deref().unwrap_or(LISTEN)),
    };
    let listener = match address {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let node = tokio::select! {
        biased;
        signal = &mut stop => return Err(Failure::Interrupted { signal: signal.unwrap_or_default() }),
        node = start(Arc::clone(&settings)) => Arc::new(node?),
    };
    let new_gateway = |listener| Gateway::new(listener, gateway_config(&settings), Arc::clone(&node));
    let gateway = listener.map(new_gateway).transpose()?;
    announce(&node, &settings, gateway.as_ref());
    let ready = Arc::clone(&node);
    notify::apart(move || notify::ready(&ready)).await;

    let mut watched = tokio::spawn(notify::keep_alive(Arc::clone(&node)));
    tokio::spawn(reload::on(hangups, Arc::downgrade(&node), Arc::new(sources), Arc::clone(&settings)));
    // When it was told to stop; nothing where it has ended by itself.
    let told = Cell::new(None);
    let stopped = async {
        tokio::select! {
            // The sender lives until it has sent.
            _ = stop => told.set(Some(Instant::now())),
            _ = &mut watched => {}
        }
        // Attached hosts are told at once, so that their calls end while those over HTTP do.
        node.turn_hosts_away();
    };
    let connections_cut = match gateway {
        Some(gateway) => gateway.serve(stopped).await.connections_cut,
        None => {
            stopped.await;
            0
        }
    };
    let Some(told) = told.get() else { return Err(Failure::NodeOver) };
    watched.abort();
    let left = settings.node.stop_timeout.unwrap_or(STOP_TIMEOUT).saturating_sub(told.elapsed());
    // Another thread, so that a second signal is still heard.
    let stopping = tokio::task::spawn_blocking(move || node.shutdown(left));
    match stopping.await {
        Ok(()) => {
            let after_ms = u64::try_from(told.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(after_ms, connections_cut, "stopped");
        }
        Err(error) => tracing::warn!(%error, "the node did not stop in order"),
    }
    Ok(())
}

/// Starts the node on another thread, so that signals are heard meanwhile: a module's `init` may take long. A process that ends in the middle of it leaves no worker: they die with
/// the thread that has started them.
async fn start(settings: Arc<Settings>) -> Result<Node, Failure> {
    let starting = tokio::task::spawn_blocking(move || launch::node(&settings));
    starting.await.unwrap_or_else(|error| Err(Failure::Runtime(std::io::Error::other(error))))
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
    let HttpSettings { bodies_limit, head_limit, max_connections, head_timeout, body_timeout, .. } = *http;
    let HttpSettings { stop_timeout, max_deadline, access_log, expose_panics, .. } = *http;
    let HttpSettings { responses_limit, write_timeout, .. } = *http;
    let default = Config::default();
    let response = settings.node.response_bytes.map_or(0, |bytes| bytes as usize);
    let body_bytes_max = http.body_bytes_max(&settings.node);
    Config {
        body_bytes_max,
        // A limit for one that was raised raises that for all.
        bodies_bytes_max: bodies_limit.unwrap_or(default.bodies_bytes_max.max(body_bytes_max)),
        responses_bytes_max: responses_limit.unwrap_or(default.responses_bytes_max.max(response)),
        head_bytes_max: head_limit.unwrap_or(default.head_bytes_max),
        connections_max: max_connections.unwrap_or(default.connections_max),
        head_timeout: head_timeout.unwrap_or(default.head_timeout),
        body_timeout: body_timeout.unwrap_or(default.body_timeout),
        write_timeout: write_timeout.unwrap_or(default.write_timeout),
        stop_timeout: stop_timeout.unwrap_or(default.stop_timeout),
        deadline_max: max_deadline.unwrap_or(default.deadline_max),
        access_log: access_log.unwrap_or(default.access_log),
        metrics_path: http.metrics.clone().unwrap_or(default.metrics_path),
        expose_panics: expose_panics.unwrap_or(default.expose_panics),
        routes: http.routes.iter().map(|(route, _)| route.clone()).collect(),
    }
}
