//! Questions to workers that serve: from any thread of the node, by way of the supervisor, which alone talks to workers.
//!
//! [`Desk::post`] hands a [`Question`] to the supervisor; it is asked when its worker has answered all earlier ones, and has one result: the
//! worker's answer, or why there is none. A worker that does not answer in time is replaced.
#![allow(dead_code, reason = "asked by what deploys modules and attaches hosts")]

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use microfaas_control::admin::Deployed;
use microfaas_control::rate::{Rate, UNASKED_PER_SECOND_MAX};
use microfaas_control::{BANS_MAX, PACKET_BYTES_MAX, ToNode, ToWorker, decode, encode};
use microfaas_lane::sync::Ordering;
use microfaas_sys::clock::monotonic_ns;
use microfaas_sys::{eventfd, socket};
use thiserror::Error;

use crate::DeployError;
use crate::attach::bulletin::Cut;
use crate::completion::printable;
use crate::hub::Hub;
use crate::lane::Lane;
use crate::node::Shared;
use crate::registry::Wish;
use crate::rollout::DeployReply;
use crate::shelf::News;

/// Commands that may wait for the supervisor; who comes then is held up.
const WAITING_MAX: usize = 64;
/// How long a worker may take to keep a list of bans.
const BANS_WITHIN: Duration = Duration::from_secs(10);
/// How long a worker may take to hear that it is to end.
const RETIRES_WITHIN: Duration = Duration::from_secs(10);

/// What a worker is to be asked.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) message: ToWorker,
    /// Go beside the message, and are closed when it was sent or cannot be.
    pub(crate) fds: Vec<Arc<OwnedFd>>,
    /// How long the worker may take from when it is asked, beside what the calls in its hands may hold it up for; then it is replaced.
    pub(crate) within: Duration,
    /// Which process of the worker's place is meant; any where `None`.
    pub(crate) generation: Option<u32>,
}

/// What a worker said, and which process of its place it was.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) message: ToNode,
    /// As in [`WorkerInfo`](crate::WorkerInfo): a later generation knows nothing of it.
    pub(crate) generation: u32,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum AskError {
    /// There is no such worker, or it is being replaced; nothing was asked.
    #[error("the worker does not serve")]
    NotServing,
    /// It ended before it answered.
    #[error("the worker was lost before it answered")]
    Lost,
    /// It could not be asked.
    #[error("the worker cannot be asked: {0}")]
    Unsendable(String),
    /// The node has been shut down.
    #[error("the node is shutting down")]
    Closed,
}

pub(crate) type AskResult = Result<Answer, AskError>;

/// Where an answer goes.
#[derive(Debug)]
pub(crate) struct Reply {
    to: SyncSender<AskResult>,
    /// Signalled when it is there.
    wake: Option<Arc<OwnedFd>>,
}

/// Whose question it is.
#[derive(Debug)]
pub(crate) enum Asker {
    /// Another thread's, which waits for the one result.
    Thread(Reply),
    /// The supervisor's own, about modules.
    Rollout,
}

/// What a worker has said.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The answer to another thread's question, which has it; or what it said was seen to.
    Told,
    /// The answer to a question of the supervisor's own.
    Own(ToNode),
    /// Unasked: it has cut a lane. The worker is for the caller to fill in.
    Cut(Cut),
    /// Unasked: of its modules.
    News(News),
    /// It cannot go on, for this reason, and ends.
    Last(String),
    /// It has closed the socket, which no worker does that lives.
    End,
}

/// What other threads want of the supervisor.
#[derive(Debug)]
pub(crate) enum Command {
    /// To be asked of one worker.
    Ask { worker: usize, question: Question, reply: Reply },
    /// Modules are to change.
    Deploy { wish: Wish, since: Instant, reply: DeployReply },
}

/// Where commands for the supervisor are handed in.
#[derive(Debug)]
pub(crate) struct Desk {
    commands: SyncSender<Command>,
    hub: Arc<Hub>,
}

/// An answer on its way.
#[derive(Debug)]
#[must_use = "the answer tells whether it was done"]
pub(crate) struct Pending(Receiver<AskResult>);

impl Pending {
    #[cfg(test)]
    pub(crate) fn of(answer: Receiver<AskResult>) -> Self {
        Self(answer)
    }

    /// Waits for the answer: a little longer than the question may take, once it is asked.
    pub(crate) fn wait(self) -> AskResult {
        self.0.recv().unwrap_or(Err(AskError::Closed))
    }

    /// The answer, if it is there.
    pub(crate) fn look(&self) -> Option<AskResult> {
        match self.0.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(AskError::Closed)),
        }
    }
}

impl Desk {
    /// With the end that the supervisor keeps.
    pub(crate) fn new(hub: Arc<Hub>) -> (Self, Receiver<Command>) {
        let (commands, inbox) = sync_channel(WAITING_MAX);
        (Self { commands, hub }, inbox)
    }

    /// Has a worker asked. Not for the supervisor's thread, which it waits for when too much lies on the desk.
    pub(crate) fn post(&self, worker: usize, question: Question) -> Pending {
        self.post_waking(worker, question, None)
    }

    /// As [`post`](Self::post); the eventfd is signalled when there is an answer to [look](Pending::look) at.
    pub(crate) fn post_waking(
        &self,
        worker: usize,
        question: Question,
        wake: Option<Arc<OwnedFd>>,
    ) -> Pending {
        let (to, answer) = sync_channel(1);
        self.hand_in(Command::Ask { worker, question, reply: Reply { to, wake } });
        Pending(answer)
    }

    /// Asks a worker and waits. See [`post`](Self::post).
    pub(crate) fn ask(&self, worker: usize, question: Question) -> AskResult {
        self.post(worker, question).wait()
    }

    /// Has modules changed, and waits for it.
    pub(crate) fn deploy(&self, wish: Wish, since: Instant) -> Result<Deployed, DeployError> {
        let (reply, done) = sync_channel(1);
        self.hand_in(Command::Deploy { wish, since, reply });
        done.recv().unwrap_or(Err(DeployError::Closed))
    }

    /// A supervisor that has ended drops the command, and its reply with it, which tells the asker.
    fn hand_in(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            self.hub.wake_supervisor();
        }
    }
}

/// Supervisor: the control socket of a worker that serves, and what it is asked.
#[derive(Debug)]
pub(crate) struct Talk {
    control: OwnedFd,
    generation: u32,
    /// In the order in which they are asked.
    waiting: VecDeque<(Question, Asker)>,
    asked: Option<Asked>,
    /// Why a question of the supervisor's own could not be sent.
    unsent: Option<String>,
    /// What it says unasked that costs it nothing to say again.
    unasked: Rate,
}

/// A question that waits for its answer.
#[derive(Debug)]
struct Asked {
    message: ToWorker,
    answer_by: Instant,
    asker: Asker,
}

impl Talk {
    pub(crate) fn new(control: OwnedFd, generation: u32) -> Self {
        Self {
            control,
            generation,
            waiting: VecDeque::new(),
            asked: None,
            unsent: None,
            unasked: Rate::default(),
        }
    }

    /// Takes another generation's part: what is asked of that one is meant.
    pub(crate) fn speaks_as(&mut self, generation: u32) {
        self.generation = generation;
    }

    /// Asks, now or when it is its turn.
    pub(crate) fn ask(&mut self, shared: &Shared, lane: &Lane, mut question: Question, asker: Asker) {
        if let Asker::Thread(reply) = &asker
            && question.generation.is_some_and(|generation| generation != self.generation)
        {
            return tell(reply, Err(AskError::NotServing));
        }
        question.within = shared.answer_within(question.within);
        self.waiting.push_back((question, asker));
        self.ask_next(lane);
    }

    /// Tells the worker which functions are banned.
    pub(crate) fn ban(&mut self, shared: &Shared, lane: &Lane, mut functions: Vec<u32>) {
        functions.truncate(BANS_MAX);
        self.tell(shared, lane, ToWorker::Bans { functions }, BANS_WITHIN);
    }

    /// Tells the worker to end when it has done what it has begun.
    pub(crate) fn retire(&mut self, shared: &Shared, lane: &Lane) {
        self.tell(shared, lane, ToWorker::Retire, RETIRES_WITHIN);
    }

    /// Nobody waits for the answer; that it comes is seen to as for any other.
    fn tell(&mut self, shared: &Shared, lane: &Lane, message: ToWorker, within: Duration) {
        let question = Question { message, fds: Vec::new(), within, generation: None };
        let (to, _) = sync_channel(1);
        self.ask(shared, lane, question, Asker::Thread(Reply { to, wake: None }));
    }

    /// The worker completes calls: it has its time for a sign of life anew.
    pub(crate) fn gets_on(&mut self, within: impl FnOnce() -> Duration) {
        if let Some(asked) = self.asked.as_mut().filter(|asked| matches!(asked.message, ToWorker::Ping)) {
            asked.answer_by = Instant::now() + within();
        }
    }

    /// Asks the worker for a sign of life, unless it has to answer something anyway.
    pub(crate) fn ping(&mut self, shared: &Shared, lane: &Lane, within: Duration) {
        if self.asked.is_some() {
            return;
        }
        self.tell(shared, lane, ToWorker::Ping, within);
    }

    fn ask_next(&mut self, lane: &Lane) {
        while self.asked.is_none() {
            let Some((Question { message, fds, within, .. }, asker)) = self.waiting.pop_front() else {
                return;
            };
            match (self.send(lane, &message, &fds), asker) {
                (Ok(()), asker) => {
                    self.asked = Some(Asked { message, answer_by: Instant::now() + within, asker });
                }
                (Err(reason), Asker::Thread(reply)) => tell(&reply, Err(AskError::Unsendable(reason))),
                (Err(reason), Asker::Rollout) => self.unsent = Some(reason),
            }
        }
    }

    fn send(&self, lane: &Lane, message: &ToWorker, fds: &[Arc<OwnedFd>]) -> Result<(), String> {
        let packet = encode(message).map_err(|error| error.to_string())?;
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        socket::send(self.control.as_fd(), &packet, &fds).map_err(|error| error.to_string())?;
        // After the packet: a worker that sees the count finds it.
        lane.host.host_words().control.0.fetch_add(1, Ordering::Release);
        // Has the fence that orders the count before the look.
        lane.wake_worker();
        Ok(())
    }

    /// Takes what the worker has said, and asks what is next.
    ///
    /// # Errors
    /// Its last words, where it was not asked and it is not one of the few things that may be said all the same, or it has said something else than it was asked.
    pub(crate) fn hear(&mut self, lane: &Lane) -> Result<Heard, String> {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let packet = match socket::try_recv(self.control.as_fd(), &mut buffer, 0) {
            Ok(packet) if packet.len == 0 => return Ok(Heard::End),
            Ok(packet) => packet,
            Err(error) => return Err(error.to_string()),
        };
        let words = || printable(&buffer[..packet.len]);
        let message: ToNode = decode(&buffer[..packet.len]).map_err(|_| words())?;
        let heard = match self.asked.take_if(|asked| message.answers(&asked.message)) {
            Some(Asked { asker: Asker::Thread(reply), .. }) => {
                tell(&reply, Ok(Answer { message, generation: self.generation }));
                Heard::Told
            }
            Some(Asked { asker: Asker::Rollout, .. }) => Heard::Own(message),
            None => match message {
                ToNode::LaneFault { .. } | ToNode::Fault { .. }
                    if self.unasked.count(monotonic_ns()) > UNASKED_PER_SECOND_MAX =>
                {
                    return Err(format!("more than {UNASKED_PER_SECOND_MAX} packets a second"));
                }
                ToNode::LaneFault { lane, reason } => {
                    let reason = printable(reason.as_bytes());
                    Heard::Cut(Cut { worker: 0, generation: self.generation, number: lane, reason })
                }
                ToNode::Fault { function, is_unsafe } => {
                    // The supervisor, which is here, looks for news afterwards.
                    lane.hub.bans.fault(function, is_unsafe);
                    Heard::Told
                }
                ToNode::Fatal { reason } => return Ok(Heard::Last(printable(reason.as_bytes()))),
                ToNode::Wanted { module } => Heard::News(News::Wanted { part: module }),
                ToNode::Unloaded { module, stayed_bytes } => {
                    Heard::News(News::Unloaded { part: module, stayed_bytes })
                }
                ToNode::Evicted { module, stayed_bytes } => {
                    Heard::News(News::Evicted { part: module, stayed_bytes })
                }
                _ => return Err(words()),
            },
        };
        self.ask_next(lane);
        Ok(heard)
    }

    /// Why the worker could not be asked a question of the supervisor's own; it is of no use then.
    pub(crate) fn unsent(&mut self) -> Option<String> {
        self.unsent.take()
    }

    /// When the worker has to have answered.
    pub(crate) fn answer_by(&self) -> Option<Instant> {
        self.asked.as_ref().map(|asked| asked.answer_by)
    }

    /// The worker has until then at least to answer.
    pub(crate) fn has_time_until(&mut self, time: Instant) {
        if let Some(asked) = &mut self.asked {
            asked.answer_by = asked.answer_by.max(time);
        }
    }

    /// What it was asked last, in a word.
    pub(crate) fn step(&self) -> &'static str {
        self.asked.as_ref().map_or("nothing", |asked| asked.message.name())
    }
}

impl AsFd for Talk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let waiting = self.waiting.drain(..).map(|(_, asker)| (asker, AskError::NotServing));
        let asked = self.asked.take().map(|asked| (asked.asker, AskError::Lost));
        for (asker, error) in waiting.chain(asked) {
            if let Asker::Thread(reply) = asker {
                tell(&reply, Err(error));
            }
        }
    }
}

/// One result, to an asker who may have gone.
pub(crate) fn tell(reply: &Reply, result: AskResult) {
    let _ = reply.to.try_send(result);
    if let Some(wake) = &reply.wake {
        let _ = eventfd::signal(wake.as_fd());
    }
}
