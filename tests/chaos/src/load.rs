//! The load: threads that submit questions to a node, wait for the answers in the three ways there are, and enter everything into the ledger.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fastrand::Rng;
use hdrhistogram::Histogram;
use microfaas_node::{Call, CallError, Completion, Node, Request, Status};

use crate::ledger::{GRACE, Ledger};
use crate::question::{Question, Wrong};

/// Before a thread whose call was refused tries again, where it has no other call to wait for.
const PAUSE: Duration = Duration::from_micros(500);
/// Between two looks of a thread that polls. It must not have a core for itself.
const LOOK: Duration = Duration::from_micros(100);
/// Longest sleep of an event loop that nobody wakes.
const NAP: Duration = Duration::from_millis(100);

/// What to submit, and how fast.
#[derive(Debug, Clone)]
pub struct Load {
    /// Whose answers are checked; taken in turn.
    pub functions: Vec<&'static str>,
    /// Threads.
    pub threads: usize,
    /// Calls that each thread has on their way.
    pub window: usize,
    /// How long a call keeps its core.
    pub spin_us: Range<u64>,
    /// How long its caller waits.
    pub deadline: Range<Duration>,
    /// Beside OK.
    pub may_end: &'static [Status],
    /// Whether another worker always has room for calls of one that was lost before they started: then none of them may end for that.
    pub moves: bool,
    /// One call of this many is taken back by its caller; 0 is none.
    pub hang_up: u64,
    /// Pause of each thread after each submission.
    pub pause: Duration,
    /// Whether a thread goes on submitting whatever became of what it has submitted, up to its window: more is asked for than there is.
    pub open_loop: bool,
}

impl Default for Load {
    /// Many small calls, from four threads.
    fn default() -> Self {
        Self {
            functions: vec!["answer"],
            threads: 4,
            window: 8,
            spin_us: 0..200,
            deadline: Duration::from_secs(20)..Duration::from_secs(30),
            may_end: &[],
            moves: false,
            hang_up: 0,
            pause: Duration::from_micros(200),
            open_loop: false,
        }
    }
}

/// What the threads of one load share with whoever looks at it.
#[derive(Debug)]
pub struct Watch {
    stop: AtomicBool,
    /// The least version of the module that calls submitted from now on may be answered by.
    pub version: AtomicU32,
    /// Odd while something is deployed; see [`deploy`](Self::deploy).
    deployments: AtomicU64,
    /// Nanoseconds from submitting to the answer, of those that ended OK. Whoever takes it puts an empty one there.
    times: Mutex<Histogram<u64>>,
    /// The same of those during which something was deployed.
    times_deploying: Mutex<Histogram<u64>>,
    problems: Mutex<Vec<String>>,
}

/// A load at work. Stopped when dropped.
#[derive(Debug)]
pub struct Running {
    watch: Arc<Watch>,
    threads: Vec<(JoinHandle<()>, Receiver<()>)>,
    patience: Duration,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 1_000_000_000_000, 3).expect("the bounds are valid")
}

impl Load {
    /// Starts the threads.
    ///
    /// # Panics
    /// Where no thread can be started.
    #[must_use]
    pub fn start(&self, node: &Node, ledger: &Arc<Ledger>, random: &mut Rng) -> Running {
        let watch = Arc::new(Watch {
            stop: AtomicBool::new(false),
            version: AtomicU32::new(0),
            deployments: AtomicU64::new(0),
            times: Mutex::new(histogram()),
            times_deploying: Mutex::new(histogram()),
            problems: Mutex::default(),
        });
        let threads = (0..self.threads)
            .map(|number| {
                let client = Client {
                    load: self.clone(),
                    node: node.clone(),
                    ledger: Arc::clone(ledger),
                    watch: Arc::clone(&watch),
                    random: random.fork(),
                    number,
                };
                let (ended, end) = channel();
                let thread = std::thread::Builder::new().name(format!("load-{number}")).spawn(move || {
                    client.run();
                    let _ = ended.send(());
                });
                (thread.expect("a thread for the load"), end)
            })
            .collect();
        Running { watch, threads, patience: self.deadline.end + 2 * GRACE }
    }
}

impl Running {
    /// What the threads share.
    #[must_use]
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// No new calls; waits for those on their way. What went wrong; a thread that does not come back has lost its calls, which the ledger knows.
    #[must_use]
    pub fn stop(mut self) -> Vec<String> {
        self.end()
    }

    fn end(&mut self) -> Vec<String> {
        self.watch.stop.store(true, Ordering::Relaxed);
        let by = Instant::now() + self.patience;
        for (thread, end) in self.threads.drain(..) {
            match end.recv_timeout(by.saturating_duration_since(Instant::now())) {
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    self.watch.problem("a caller waits for ever".to_owned());
                }
                Ok(()) | Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                    if thread.join().is_err() {
                        self.watch.problem("a caller's thread panicked".to_owned());
                    }
                }
            }
        }
        std::mem::take(&mut lock(&self.watch.problems))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

impl Watch {
    /// The times since this was last asked, of calls during which nothing was deployed.
    #[must_use]
    pub fn take_times(&self) -> Histogram<u64> {
        std::mem::replace(&mut lock(&self.times), histogram())
    }

    /// The times of the others.
    #[must_use]
    pub fn take_times_deploying(&self) -> Histogram<u64> {
        std::mem::replace(&mut lock(&self.times_deploying), histogram())
    }

    /// Deploys something: calls that are on their way meanwhile are measured apart.
    pub fn deploy<T>(&self, deploy: impl FnOnce() -> T) -> T {
        self.deployments.fetch_add(1, Ordering::SeqCst);
        let done = deploy();
        self.deployments.fetch_add(1, Ordering::SeqCst);
        done
    }

    fn problem(&self, what: String) {
        let mut problems = lock(&self.problems);
        if problems.len() < 10 {
            problems.push(what);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Median and 99th percentile, of nanoseconds, in milliseconds.
#[must_use]
pub fn p50_p99_ms(times: &Histogram<u64>) -> (f64, f64) {
    let ms = |quantile| times.value_at_quantile(quantile) as f64 / 1e6;
    (ms(0.5), ms(0.99))
}

/// A call on its way.
struct Out {
    call: Call,
    asked: Asked,
}

/// What was asked, and when.
struct Asked {
    question: Question,
    since: Instant,
    /// See [`Watch::version`].
    version: u32,
    /// See [`Watch::deploy`].
    deployments: u64,
}

struct Client {
    load: Load,
    node: Node,
    ledger: Arc<Ledger>,
    watch: Arc<Watch>,
    random: Rng,
    number: usize,
}

impl Client {
    fn run(mut self) {
        let mut out = VecDeque::new();
        let mut completion = Completion::default();
        let mut body = Vec::new();
        while !self.watch.stop.load(Ordering::Relaxed) {
            if self.load.open_loop {
                while self.take_ready(&mut out, &mut completion) {}
                if out.len() < self.load.window {
                    self.submit(&mut body, &mut out);
                }
            } else {
                let submitted = self.submit(&mut body, &mut out);
                if !submitted && out.is_empty() {
                    std::thread::sleep(PAUSE);
                } else if !submitted || out.len() >= self.load.window {
                    self.take_one(&mut out, &mut completion);
                }
            }
            if !self.load.pause.is_zero() {
                std::thread::sleep(self.load.pause);
            }
        }
        while !out.is_empty() {
            self.take_one(&mut out, &mut completion);
        }
    }

    /// False where it was refused.
    fn submit(&mut self, body: &mut Vec<u8>, out: &mut VecDeque<Out>) -> bool {
        let Some(id) = self.ledger.offer() else {
            // The table is full: enough was asked.
            self.watch.stop.store(true, Ordering::Relaxed);
            return false;
        };
        let random = &mut self.random;
        let payload = match random.u32(0..1000) {
            0 => 100_000,
            1..20 => random.usize(4000..9000),
            _ => random.usize(0..200),
        };
        let spin_us = if self.load.spin_us.is_empty() { 0 } else { random.u64(self.load.spin_us.clone()) };
        let question = Question { id, nonce: random.u64(..), spin_us, payload };
        question.write(body);
        let function = self.load.functions[random.usize(..self.load.functions.len())];
        let Range { start, end } = self.load.deadline;
        let deadline = start + (end - start).mul_f64(random.f64());
        let version = self.watch.version.load(Ordering::SeqCst);
        let deployments = self.watch.deployments.load(Ordering::SeqCst);
        let since = Instant::now();
        match self.node.submit(function, Request::new(body).deadline(deadline)) {
            Ok(call) => {
                self.ledger.accept(id, Instant::now() + deadline);
                if self.load.hang_up > 0 && random.u64(0..self.load.hang_up) == 0 {
                    let _ = call.cancel();
                    self.ledger.hang_up(id);
                } else {
                    out.push_back(Out { call, asked: Asked { question, since, version, deployments } });
                }
                true
            }
            Err(error) => {
                self.ledger.refuse(id, since.elapsed());
                match error {
                    CallError::Overloaded { .. } | CallError::NoWorker => {}
                    CallError::Closed => self.watch.stop.store(true, Ordering::Relaxed),
                    error => self.watch.problem(format!("{function} was refused: {error}")),
                }
                false
            }
        }
    }

    /// Waits for the oldest call, or for any, in one of the three ways.
    fn take_one(&mut self, out: &mut VecDeque<Out>, completion: &mut Completion) {
        match self.number % 3 {
            0 => {
                let Some(Out { call, asked }) = out.pop_front() else { return };
                call.wait_into(completion);
                self.enter(&asked, completion);
            }
            // The node has one event loop.
            1 if self.number == 1 => self.take_any(out, completion, Self::sleep_on_events),
            _ => self.take_any(out, completion, |_| std::thread::sleep(LOOK)),
        }
    }

    fn take_any(&mut self, out: &mut VecDeque<Out>, completion: &mut Completion, sleep: fn(&Self)) {
        while !out.is_empty() && !self.take_ready(out, completion) {
            sleep(self);
        }
    }

    /// Takes one answer that is there; false where there is none.
    fn take_ready(&mut self, out: &mut VecDeque<Out>, completion: &mut Completion) -> bool {
        let ready = out.iter_mut().position(|out| out.call.try_take_into(completion));
        let Some(Out { asked, .. }) = ready.and_then(|i| out.remove(i)) else { return false };
        self.enter(&asked, completion);
        true
    }

    fn sleep_on_events(&self) {
        if self.node.arm()
            && let Err(error) = microfaas_sys::poll::is_readable(self.node.event_fd(), Some(NAP))
        {
            self.watch.problem(format!("the event descriptor cannot be waited for: {error}"));
        }
        self.node.disarm();
        self.node.poll();
    }

    fn enter(&mut self, asked: &Asked, completion: &Completion) {
        let Asked { question, since, version, deployments } = *asked;
        self.ledger.settle(question.id, completion.status);
        if completion.status != Status::Ok {
            let unmoved = self.load.moves && completion.never_started;
            if unmoved || !self.load.may_end.contains(&completion.status) {
                let Completion { status, detail, .. } = completion;
                self.watch.problem(format!("request {} ended {status}: {detail}", question.id));
            }
            return;
        }
        match question.check(&completion.body) {
            Ok(right) => {
                self.ledger.answered(question.id);
                if right.version < version {
                    let said = right.version;
                    self.ledger.wrong(
                        question.id,
                        format!("answered by version {said} when {version} was deployed"),
                    );
                }
            }
            Err(wrong) => {
                if let Wrong::Other(id) = wrong {
                    self.ledger.answered(id);
                }
                self.ledger.wrong(question.id, wrong);
            }
        }
        let nanos = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let is_apart = deployments % 2 == 1 || self.watch.deployments.load(Ordering::SeqCst) != deployments;
        let times = if is_apart { &self.watch.times_deploying } else { &self.watch.times };
        lock(times).saturating_record(nanos);
    }
}
