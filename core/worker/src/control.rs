//! Set-up: the worker's side of the control socket.
#![expect(unsafe_code, reason = "takes over an inherited descriptor and maps regions")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use microfaas_control::{
    CONTROL_FD, LaneSpec, PACKET_BYTES_MAX, PACKET_FDS_MAX, ToNode, ToWorker, decode, encode,
};
use microfaas_lane::layout::{Header, Region};
use microfaas_lane::sync::Ordering;
use microfaas_lane::worker::{Bases, Completion, WorkerLane};
use microfaas_preempt::timer;
use microfaas_sys::mapping::Mapping;
use microfaas_sys::{affinity, eventfd, futex, socket};

use crate::descriptor::{Event, Received};
use crate::lanes::NODE;

/// The control socket that a node leaves as descriptor [`CONTROL_FD`].
///
/// # Errors
/// Where there is no such descriptor.
pub fn inherited() -> io::Result<OwnedFd> {
    // SAFETY: asks about a descriptor, whatever it is.
    if unsafe { libc::fcntl(CONTROL_FD, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and nothing else in this process knows of it: the node put it there for us.
    let fd = unsafe { OwnedFd::from_raw_fd(CONTROL_FD) };
    nix::sys::socket::getsockname::<nix::sys::socket::UnixAddr>(CONTROL_FD)?;
    Ok(fd)
}

/// Talks to the node.
#[derive(Debug, Clone)]
pub struct Voice(Arc<OwnedFd>);

impl Voice {
    /// Sends one message. Where the node has much to read still, it is waited for: a live node reads, and a worker must not end since its node is slow.
    ///
    /// # Errors
    /// As the socket.
    pub fn say(&self, message: &ToNode) -> io::Result<()> {
        let packet = encode(message).map_err(io::Error::other)?;
        socket::send_waiting(self.0.as_fd(), &packet)
    }

    /// As [`say`](Self::say), without waiting: for what can be said later, or not at all.
    ///
    /// # Errors
    /// As the socket: `WouldBlock` where there is no room.
    pub fn try_say(&self, message: &ToNode) -> io::Result<()> {
        let packet = encode(message).map_err(io::Error::other)?;
        socket::send(self.0.as_fd(), &packet, &[])
    }
}

impl AsFd for Voice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The socket with a buffer for its packets.
#[derive(Debug)]
pub struct Control {
    voice: Voice,
    buffer: Vec<u8>,
}

/// What the node said.
#[derive(Debug)]
pub enum Heard {
    /// A message with its descriptors.
    Message(ToWorker, Vec<Received>),
    /// Nothing now.
    Nothing,
    /// The node has closed the socket.
    End,
}

impl Control {
    /// Takes the socket over.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self { voice: Voice(Arc::new(socket)), buffer: vec![0; PACKET_BYTES_MAX] }
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// As the socket; `InvalidData` for what is no message.
    pub fn wait(&mut self) -> io::Result<Heard> {
        let packet = socket::recv(self.voice.as_fd(), &mut self.buffer, PACKET_FDS_MAX, None);
        self.understand(packet)
    }

    /// The next message, if there is one now.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn look(&mut self) -> io::Result<Heard> {
        let packet = socket::try_recv(self.voice.as_fd(), &mut self.buffer, PACKET_FDS_MAX);
        match packet {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Heard::Nothing),
            packet => self.understand(packet),
        }
    }

    fn understand(&self, packet: io::Result<socket::Packet>) -> io::Result<Heard> {
        let packet = packet?;
        if packet.len == 0 {
            return Ok(Heard::End);
        }
        let message = decode(&self.buffer[..packet.len]).map_err(io::Error::other)?;
        Ok(Heard::Message(message, packet.fds.into_iter().map(Received::new).collect()))
    }

    /// Answers the node.
    ///
    /// # Errors
    /// As the socket.
    pub fn say(&self, message: &ToNode) -> io::Result<()> {
        self.voice.say(message)
    }

    /// As [`Voice::try_say`].
    ///
    /// # Errors
    /// As [`Voice::try_say`].
    pub fn try_say(&self, message: &ToNode) -> io::Result<()> {
        self.voice.try_say(message)
    }

    /// What answers the node, for others to use beside this.
    #[must_use]
    pub fn voice(&self) -> Voice {
        self.voice.clone()
    }
}

/// A lane with what keeps it alive.
#[derive(Debug)]
pub struct Lane {
    /// The worker's end.
    pub end: WorkerLane,
    /// The host's eventfd.
    pub event: Event,
    /// The control count last seen.
    pub control_seen: u32,
    /// Whether a completion was published without looking who sleeps.
    unannounced: bool,
    /// The host has made its eventfd one that signalling waits for.
    event_waits: bool,
    is_nodes: bool,
    /// The host is not trusted: see `private`.
    pub copies: bool,
    _mappings: [Mapping; 3],
}

impl Lane {
    /// Whether the node has sent a packet since [`control_seen`](Self::control_seen). Only its own lane tells: others' counts are the words of hosts that may
    /// not be trusted.
    #[inline]
    #[must_use]
    pub fn control_waits(&self) -> bool {
        self.is_nodes && self.end.host_words().control.0.load(Ordering::Acquire) != self.control_seen
    }

    /// Tells the host which core its calls run on, where that is another than before.
    pub fn runs_on(&self, core: Option<u32>) {
        let (word, core) = (&self.end.worker_words().worker_cpu.0, core.map_or(0, |core| core + 1));
        if word.load(Ordering::Relaxed) != core {
            word.store(core, Ordering::Relaxed);
        }
    }

    /// Publishes a completion, and wakes whoever sleeps for it, unless another submission waits: then the worker is to claim that one first
    /// and [`announce`](Self::announce) before it runs it. The claim waits for the completion to be visible in any case, so the fence that
    /// waking needs costs little there, and would wait for as long here.
    #[inline]
    pub fn complete(&mut self, completion: &Completion) {
        self.end.complete(completion);
        self.unannounced = true;
        if !self.end.is_ready() {
            self.announce();
        }
    }

    /// Wakes whoever sleeps for completions that were not announced.
    ///
    /// # Cost
    /// A system call for each kind of sleeper that sleeps and was not woken in this nap.
    #[inline]
    pub fn announce(&mut self) {
        if !std::mem::take(&mut self.unannounced) {
            return;
        }
        let sleeps = self.end.host_sleeps();
        // Neither can fail on a live word and a live descriptor; a host that was not woken looks again by itself.
        if sleeps.futex {
            let _ = futex::wake_all(self.end.worker_words().host_bell.word().as_std());
        }
        if sleeps.event {
            self.signal();
        }
    }

    /// Signals the host's eventfd. Its flags are one with those of the host's own descriptor: one that is not trusted may have made it blocking, and full. It is not
    /// waited for twice.
    #[cold]
    fn signal(&mut self) {
        let event = self.event.as_fd();
        if !self.copies {
            let _ = eventfd::signal(event);
        } else if !self.event_waits {
            let signalled = timer::interrupting(|| eventfd::signal_until_interrupted(event));
            self.event_waits = matches!(signalled, Ok(false));
        }
    }
}

/// Maps a lane and checks the regions' headers. Their sizes are the node's affair: it has made and sealed them, and a sealed worker cannot ask.
///
/// # Errors
/// Where the geometry, a descriptor or a header is wrong, or the kernel refuses a mapping. Nothing of the lane is left then.
pub fn add_lane(spec: &LaneSpec, fds: Vec<Received>) -> io::Result<Lane> {
    spec.geometry.check().map_err(io::Error::other)?;
    let [event, down, bulk, up] = <[Received; 4]>::try_from(fds)
        .map_err(|fds| io::Error::other(format!("{} descriptors with a lane, not 4", fds.len())))?;
    let geometry = spec.geometry;
    let event = Event::place(&event, spec.lane)?;
    let down = map(down.as_fd(), geometry.down_bytes(), Region::Down, spec)?;
    let bulk = map(bulk.as_fd(), geometry.bulk_bytes(), Region::Bulk, spec)?;
    let up = map(up.as_fd(), geometry.up_bytes(), Region::Up, spec)?;
    let bases = Bases { down: down.base(), bulk: bulk.base(), up: up.base() };
    // SAFETY: three mappings of the geometry's sizes, kept beside the end for its life; the geometry was checked; the node makes one worker's end
    // of each lane.
    let end = unsafe { WorkerLane::new(bases, geometry) };
    let lane = Lane {
        end,
        event,
        control_seen: 0,
        unannounced: false,
        event_waits: false,
        is_nodes: spec.lane as usize == NODE,
        copies: spec.copies,
        _mappings: [down, bulk, up],
    };
    lane.runs_on(affinity::current());
    Ok(lane)
}

fn map(fd: BorrowedFd<'_>, len: usize, region: Region, spec: &LaneSpec) -> io::Result<Mapping> {
    let mapping = match region {
        Region::Up => Mapping::shared_rw(fd, len, spec.geometry.resident_up_bytes())?,
        Region::Down | Region::Bulk => Mapping::shared_ro(fd, len)?,
    };
    if region == Region::Down {
        mapping.populate(0..len)?;
    }
    // SAFETY: a region is at least a page; `Header` is plain numbers. The host wrote it before the descriptor came; one that is not trusted may be writing still, so it is
    // copied once, and nothing but whether the lane is taken depends on the copy.
    let header = unsafe { mapping.base().cast::<Header>().read_volatile() };
    if header != spec.geometry.header(region) {
        return Err(io::Error::other(format!("{region:?} region of lane {} has another header", spec.lane)));
    }
    Ok(mapping)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As when calls fault as fast as they can while the node has other things to do.
    #[test]
    fn faults_that_nobody_reads_do_not_end_the_worker() {
        let (near, far) = socket::pair().unwrap();
        let control = Control::new(near);
        let fault = ToNode::Fault { function: 0, is_unsafe: false };
        let mut said = 0;
        while control.try_say(&fault).is_ok() {
            said += 1;
        }
        assert_eq!(control.try_say(&fault).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        std::thread::scope(|scope| {
            let answer = scope.spawn(|| control.say(&ToNode::Pong));
            let mut buffer = [0; 256];
            let mut hear = || {
                let packet = socket::recv(far.as_fd(), &mut buffer, 0, None).unwrap();
                decode::<ToNode>(&buffer[..packet.len]).unwrap()
            };
            (0..said).for_each(|_| assert_eq!(hear(), fault));
            assert_eq!(hear(), ToNode::Pong);
            answer.join().unwrap().unwrap();
        });
    }
}
