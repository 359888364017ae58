//! A backend that answers what its function's name says, and a gateway in front of it.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use microfaas_http::{Answer, Backend, CallRequest, Config, Gateway, Health, Refused, Status, Stopped};
use microfaas_node::Metrics;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

/// No test takes this long unless something hangs.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

/// | function | answer |
/// | --- | --- |
/// | `echo` | the body, and metadata that says what came: `x-seen-…` of each pair |
/// | `meta.STATUS` | 200 or whatever, with `:status` STATUS |
/// | `end.NAME` | ends with that status; the body is `secret` |
/// | `refuse.NAME` | is not accepted, with that status |
/// | `hold` | waits until [`Fake::release`] |
/// | `big.BYTES` | so many bytes |
/// | `deadline` | the deadline in milliseconds |
#[derive(Debug, Default)]
pub(crate) struct Fake {
    pub(crate) submitted: AtomicUsize,
    pub(crate) taken_back: AtomicUsize,
    pub(crate) workers_up: AtomicUsize,
    /// Pages of metrics that were begun.
    pub(crate) pages: AtomicUsize,
    pub(crate) changed: Notify,
    holds_metrics: AtomicBool,
    pub(crate) breaks_metrics: AtomicBool,
    release: Arc<Notify>,
}

/// While this lives, no page of metrics is finished.
pub(crate) struct Making(Arc<Fake>);

impl Drop for Making {
    fn drop(&mut self) {
        self.0.holds_metrics.store(false, Ordering::SeqCst);
    }
}

impl Fake {
    pub(crate) fn hold_metrics(self: &Arc<Self>) -> Making {
        self.holds_metrics.store(true, Ordering::SeqCst);
        Making(Arc::clone(self))
    }

    /// Answers all that were submitted to `hold`, also those that nobody waits for yet.
    pub(crate) fn release(&self) {
        self.release.notify_waiters();
    }

    /// Waits until `count` has reached `n`.
    pub(crate) async fn until(&self, count: impl Fn(&Self) -> &AtomicUsize, n: usize) {
        loop {
            let changed = self.changed.notified();
            if count(self).load(Ordering::SeqCst) >= n {
                return;
            }
            changed.await;
        }
    }
}

fn answer(status: Status, body: &[u8], meta: Vec<(String, String)>) -> Answer {
    Answer { status, body: body.to_vec(), meta, worker: Some(1), cpu_ns: 1000, detail: String::new() }
}

fn status_named(name: &str) -> Status {
    Status::ALL.into_iter().find(|status| status.name() == name).unwrap()
}

/// Counts itself when it is dropped before its end.
struct Held(Option<Arc<Fake>>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(fake) = &self.0 {
            fake.taken_back.fetch_add(1, Ordering::SeqCst);
            fake.changed.notify_waiters();
        }
    }
}

/// So that a call can hold on to its backend.
#[derive(Debug, Clone)]
pub(crate) struct FakeNode(pub(crate) Arc<Fake>);

impl Backend for FakeNode {
    type Call = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn submit(&self, request: CallRequest<'_>) -> Result<Self::Call, Refused> {
        // Before anybody is told of the call: what is released from now on is meant for it, too.
        let released = Arc::clone(&self.0.release).notified_owned();
        self.0.submitted.fetch_add(1, Ordering::SeqCst);
        self.0.changed.notify_waiters();
        let ready = match request.function.split_once('.').unwrap_or((request.function, "")) {
            ("echo", _) => {
                let seen = |(n, v): &(&str, &str)| {
                    (format!("x-seen-{}", n.trim_start_matches(':')), (*v).to_owned())
                };
                answer(Status::Ok, request.body, request.meta.iter().map(seen).collect())
            }
            ("meta", status) => answer(Status::Ok, b"12345", vec![(":status".to_owned(), status.to_owned())]),
            ("big", bytes) => answer(Status::Ok, &vec![7; bytes.parse().unwrap()], Vec::new()),
            ("end", name) => answer(status_named(name), b"secret", Vec::new()),
            ("refuse", name) => {
                return Err(Refused {
                    status: status_named(name),
                    message: "as told".to_owned(),
                    retry_after: Duration::ZERO,
                });
            }
            ("deadline", _) => {
                let text = request.deadline.map_or_else(|| "none".to_owned(), |d| d.as_millis().to_string());
                answer(Status::Ok, text.as_bytes(), Vec::new())
            }
            ("hold", _) => {
                let mut held = Held(Some(Arc::clone(&self.0)));
                return Ok(Box::pin(async move {
                    released.await;
                    drop(held.0.take());
                    answer(Status::Ok, b"released", Vec::new())
                }));
            }
            _ => {
                return Err(Refused {
                    status: Status::NotFound,
                    message: "no such function".to_owned(),
                    retry_after: Duration::ZERO,
                });
            }
        };
        Ok(Box::pin(std::future::ready(ready)))
    }

    fn metrics(&self) -> Metrics {
        self.0.pages.fetch_add(1, Ordering::SeqCst);
        self.0.changed.notify_waiters();
        let start = Instant::now();
        while self.0.holds_metrics.load(Ordering::SeqCst) {
            assert!(start.elapsed() < WATCHDOG, "nobody else gets on");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!self.0.breaks_metrics.load(Ordering::SeqCst), "as told");
        Metrics::default()
    }

    fn health(&self) -> Health {
        Health { workers: 2, workers_up: self.0.workers_up.load(Ordering::SeqCst) }
    }
}

/// A gateway that serves, until it is told to stop.
pub(crate) struct Served {
    pub(crate) addr: SocketAddr,
    pub(crate) fake: Arc<Fake>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Stopped>,
}

pub(crate) async fn serve(config: Config) -> Served {
    let fake = Arc::new(Fake { workers_up: AtomicUsize::new(2), ..Fake::default() });
    let node = Arc::new(FakeNode(Arc::clone(&fake)));
    let gateway = Gateway::bind("127.0.0.1:0", config, node).await.unwrap();
    let addr = gateway.local_addr();
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(gateway.serve(async {
        let _ = stopped.await;
    }));
    Served { addr, fake, stop: Some(stop), serving }
}

impl Served {
    /// Tells it to stop; it may still finish what is in flight.
    pub(crate) fn begin_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub(crate) async fn stopped(self) -> Stopped {
        self.serving.await.unwrap()
    }
}

/// Runs a test under the watchdog.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(WATCHDOG, test).await.expect("the test hangs") });
}
