//! One connection of a host, as the node sees it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use microfaas_control::attach::{FromHost, ToHost};
use microfaas_control::{PACKET_BYTES_MAX, decode, encode};
use microfaas_sys::local::Peer;
use microfaas_sys::socket;

use crate::attach::outbox::Outbox;
use crate::memory::RegionFds;

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has to say hello until then.
    Greeting(Instant),
    /// It asks questions.
    Asking,
    /// It gets lanes; whether it was told that it has them all.
    Attached { ready: bool },
}

/// What has become of a lane.
#[derive(Debug)]
pub(crate) enum Progress {
    /// The host is to map it until then.
    Offered { fds: RegionFds, event: Arc<OwnedFd>, until: Instant },
    /// The worker is to map it.
    Adding,
    /// Both have.
    Open,
}

/// A lane of the host, with where it is in its worker.
#[derive(Debug)]
pub(crate) struct GuestLane {
    pub(crate) worker: usize,
    pub(crate) generation: u32,
    /// See `Numbers`.
    pub(crate) number: u32,
    pub(crate) progress: Progress,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Guest {
    socket: OwnedFd,
    pidfd: Option<OwnedFd>,
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    /// Of the node's own user, or root.
    pub(crate) is_own: bool,
    outbox: Outbox,
    pub(crate) stage: Stage,
    pub(crate) lanes: BTreeMap<u64, GuestLane>,
    /// Workers, by number and generation, that it gets no lane to any more.
    pub(crate) shunned: Vec<(usize, u32)>,
    /// No lane is offered before.
    pub(crate) pause_until: Instant,
}

/// What a guest has said.
#[derive(Debug)]
pub(crate) enum Said {
    Message(FromHost),
    Nothing,
    /// Its process has ended, or it has closed the connection.
    End,
}

impl Guest {
    pub(crate) fn new(socket: OwnedFd, peer: Peer, is_own: bool, greet_by: Instant) -> Self {
        Self {
            socket,
            pidfd: peer.pidfd,
            pid: peer.pid,
            uid: peer.uid,
            is_own,
            outbox: Outbox::default(),
            stage: Stage::Greeting(greet_by),
            lanes: BTreeMap::new(),
            shunned: Vec::new(),
            pause_until: Instant::now(),
        }
    }

    /// Readable when it has said something; the flag: also to be looked at when there is room for what waits.
    pub(crate) fn socket(&self) -> (BorrowedFd<'_>, bool) {
        (self.socket.as_fd(), self.outbox.read_by().is_some())
    }

    /// Readable when its process has ended, which the socket does not say while a child of it has it open.
    pub(crate) fn process(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// # Errors
    /// Where it is gone or does not read.
    pub(crate) fn say(&mut self, message: &ToHost, fds: Vec<Arc<OwnedFd>>) -> io::Result<()> {
        let packet = encode(message).map_err(io::Error::other)?;
        self.outbox.say(self.socket.as_fd(), packet, fds)
    }

    /// Tells it of all functions, and not of those that it was told of before and has not read.
    ///
    /// # Errors
    /// As [`say`](Self::say).
    pub(crate) fn say_table(&mut self, parts: &[ToHost]) -> io::Result<()> {
        let packets: Result<Vec<_>, _> = parts.iter().map(encode).collect();
        self.outbox.say_table(self.socket.as_fd(), packets.map_err(io::Error::other)?)
    }

    /// As [`Outbox::flush`].
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.outbox.flush(self.socket.as_fd())
    }

    /// Its next packet, if there is one.
    ///
    /// # Errors
    /// Where it is no message, or comes with a descriptor.
    pub(crate) fn hear(&self, buffer: &mut [u8; PACKET_BYTES_MAX]) -> io::Result<Said> {
        match socket::try_recv(self.socket.as_fd(), buffer, 0) {
            Ok(packet) if packet.len == 0 => Ok(Said::End),
            Ok(packet) => decode(&buffer[..packet.len]).map(Said::Message).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Said::Nothing),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn is_attached(&self) -> bool {
        matches!(self.stage, Stage::Attached { .. })
    }

    /// Whether an offer waits for its answer; one does at a time, so that few descriptors are on their way.
    fn has_offer(&self) -> bool {
        self.lanes.values().any(|lane| matches!(lane.progress, Progress::Offered { .. }))
    }

    /// Whether a lane to this worker may be offered now.
    pub(crate) fn wants(&self, worker: usize, generation: u32) -> bool {
        self.is_attached()
            && !self.has_offer()
            && self.lacks(worker, generation)
            && self.pause_until <= Instant::now()
    }

    /// Whether it has no lane to this worker and should have one.
    pub(crate) fn lacks(&self, worker: usize, generation: u32) -> bool {
        !self.shunned.contains(&(worker, generation))
            && !self.lanes.values().any(|lane| lane.worker == worker)
    }

    /// It has until then at least for what it is to do.
    pub(crate) fn has_time_until(&mut self, time: Instant) {
        if let Stage::Greeting(until) = &mut self.stage {
            *until = time.max(*until);
        }
        for lane in self.lanes.values_mut() {
            if let Progress::Offered { until, .. } = &mut lane.progress {
                *until = time.max(*until);
            }
        }
        self.outbox.has_time_until(time);
    }

    /// Whether it has said hello and mapped what it was offered in time, and takes what it is told; until when it is to do the next of these.
    pub(crate) fn next_limit(&self) -> Option<Instant> {
        let greeting = match self.stage {
            Stage::Greeting(until) => Some(until),
            Stage::Asking | Stage::Attached { .. } => None,
        };
        let offers = self.lanes.values().filter_map(|lane| match lane.progress {
            Progress::Offered { until, .. } => Some(until),
            Progress::Adding | Progress::Open => None,
        });
        offers.chain(greeting).chain(self.outbox.read_by()).min()
    }
}
