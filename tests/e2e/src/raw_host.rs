//! A host without manners: speaks the attach protocol packet by packet, and has its lanes' memory in its hands.
#![expect(unsafe_code, reason = "maps lanes and hands their memory out")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use microfaas_control::attach::{FDS_MAX, FromHost, Function, ToHost, VERSION};
use microfaas_control::{PACKET_BYTES_MAX, decode, encode};
use microfaas_lane::host::{HostLane, Memory, Reader, Request, Ticket};
use microfaas_lane::layout::{Geometry, Header, LINE, RING, Region};
use microfaas_lane::slots::{Outcome, Record};
use microfaas_sys::mapping::Mapping;
use microfaas_sys::{futex, local, socket};

/// Longer than the node waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// The memory of a lane.
#[derive(Debug)]
pub struct Regions {
    geometry: Geometry,
    maps: [Mapping; 3],
    records: Box<[Record]>,
}

impl Regions {
    fn map(geometry: Geometry, fds: [OwnedFd; 3]) -> io::Result<Self> {
        let [down, bulk, up] = fds;
        let maps = [
            Mapping::shared_rw(down.as_fd(), geometry.down_bytes(), 0)?,
            Mapping::shared_rw(bulk.as_fd(), geometry.bulk_bytes(), 0)?,
            Mapping::shared_rw(up.as_fd(), geometry.up_bytes(), 0)?,
        ];
        for (map, region) in maps.iter().zip([Region::Down, Region::Bulk, Region::Up]) {
            // SAFETY: at least a page, writable, and nobody else looks at it yet.
            unsafe { map.base().cast::<Header>().write(geometry.header(region)) };
        }
        let records = (0..geometry.slots()).map(|_| Record::default()).collect();
        Ok(Self { geometry, maps, records })
    }
}

// SAFETY: three mappings of the geometry's sizes that live as long as this; the records are this value's own.
unsafe impl Memory for Regions {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn base(&self, region: Region) -> NonNull<u8> {
        self.maps[region as usize].base()
    }

    unsafe fn records(&self) -> &[Record] {
        &self.records
    }
}

/// A lane that the node has offered.
#[derive(Debug)]
pub struct RawLane {
    /// Its number in the connection.
    pub number: u64,
    /// Its worker.
    pub worker: u32,
    /// The worker's process.
    pub process: OwnedFd,
    /// The host's end.
    pub host: HostLane<Regions>,
    /// What the worker signals.
    pub event: OwnedFd,
    reader: Reader,
    /// Of [`resubmit`](Self::resubmit).
    position: u64,
}

impl RawLane {
    /// Submits a call without looking at anything, and wakes the worker.
    ///
    /// # Panics
    /// Where no slot is free.
    pub fn submit(&mut self, function: u32, body: &[u8]) -> Ticket {
        let mut reserved = self.host.reserve(body.len()).expect("a free slot");
        self.host.buffer(&mut reserved)[..body.len()].copy_from_slice(body);
        let body_len = u32::try_from(body.len()).expect("a short body");
        let request =
            Request { function, body_len, meta_len: 0, deadline_ns: u64::MAX, flags: 0, submitted_cycles: 0 };
        let ticket = self.host.submit(reserved, &request);
        self.wake();
        ticket
    }

    /// Rings, whether the worker sleeps or not.
    pub fn wake(&self) {
        let bell = &self.host.host_words().worker_bell;
        bell.ring();
        let _ = futex::wake_all(bell.word().as_std());
    }

    /// The outcome of a call, once it is there.
    ///
    /// # Panics
    /// Where the worker breaks the protocol.
    pub fn outcome(&mut self, ticket: Ticket) -> Option<Outcome> {
        while self.host.poll(&mut self.reader).expect("an honest worker").is_some() {}
        self.host.outcome(ticket)
    }

    /// The response's body.
    #[must_use]
    pub fn body(&self, ticket: Ticket, outcome: &Outcome) -> Vec<u8> {
        let mut body = Vec::with_capacity(outcome.body_len as usize);
        let room = &mut body.spare_capacity_mut()[..outcome.body_len as usize];
        self.host.copy_response(ticket, outcome, 0, room);
        // SAFETY: all of the room was filled.
        unsafe { body.set_len(outcome.body_len as usize) };
        body
    }

    /// Writes all over a region, from an offset on.
    pub fn scribble(&self, region: Region, from: usize, byte: u8) {
        let geometry = self.host.geometry();
        let bytes = match region {
            Region::Down => geometry.down_bytes(),
            Region::Bulk => geometry.bulk_bytes().min(1 << 20),
            Region::Up => geometry.resident_up_bytes(),
        };
        self.fill(region, from, bytes - from, byte);
    }

    /// Writes into a region.
    ///
    /// # Panics
    /// Outside the region.
    pub fn fill(&self, region: Region, from: usize, len: usize, byte: u8) {
        let map = &self.host.memory().maps[region as usize];
        assert!(from + len <= map.len());
        for at in from..from + len {
            let place = map.base().as_ptr().wrapping_add(at);
            // SAFETY: within the mapping; what others make of it is the point.
            unsafe { place.write_volatile(byte) };
        }
    }

    /// Submits a call in slot 0 whatever has become of the one before, with a body of this many bytes. Not to be mixed with [`submit`](Self::submit).
    pub fn resubmit(&mut self, function: u32, body_len: u32) {
        let geometry = *self.host.geometry();
        let entries = u64::from(geometry.ring_entries());
        let position = entries + self.position;
        self.position += 1;
        let generation = self.position << 32;
        self.word(Region::Up, geometry.state_offset(0)).store(generation | 1, Ordering::Release);
        let line = RING + usize::try_from(position % entries).unwrap_or(0) * LINE;
        let words = [generation | u64::from(function), u64::from(body_len) << 32, u64::MAX, 0, 0, 0, 0];
        for (at, word) in (1..).zip(words) {
            self.word(Region::Down, line + 8 * at).store(word, Ordering::Relaxed);
        }
        self.word(Region::Down, line).store((position / entries + 1) << 32, Ordering::Release);
    }

    /// A word of a region.
    fn word(&self, region: Region, at: usize) -> &AtomicU64 {
        let map = &self.host.memory().maps[region as usize];
        assert!(at.is_multiple_of(8) && at + 8 <= map.len());
        let place = map.base().as_ptr().wrapping_add(at);
        // SAFETY: aligned, within the mapping, which lives as long as the lane; shared memory is touched by atomics.
        unsafe { AtomicU64::from_ptr(place.cast()) }
    }
}

/// A connection.
#[derive(Debug)]
pub struct RawHost {
    socket: OwnedFd,
    /// Lanes that were offered and mapped.
    pub lanes: Vec<RawLane>,
    /// The table of functions.
    pub functions: Vec<Function>,
}

impl RawHost {
    /// Connects and says nothing.
    ///
    /// # Errors
    /// As `connect(2)`.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self { socket: local::connect(path)?, lanes: Vec::new(), functions: Vec::new() })
    }

    /// Attaches and maps every lane, as an honest host does.
    ///
    /// # Errors
    /// What the node says against it.
    pub fn attach(path: &Path) -> io::Result<Self> {
        let mut host = Self::connect(path)?;
        host.say(&FromHost::Hello { version: VERSION, lanes: true })?;
        while host.obey()? {}
        Ok(host)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// As the socket.
    pub fn say(&self, message: &FromHost) -> io::Result<()> {
        self.send(&encode(message).map_err(io::Error::other)?, &[])
    }

    /// Sends anything.
    ///
    /// # Errors
    /// As the socket.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        socket::send(self.socket.as_fd(), bytes, fds)
    }

    /// The next message.
    ///
    /// # Errors
    /// `UnexpectedEof` at the end of the connection.
    pub fn hear(&self) -> io::Result<(ToHost, Vec<OwnedFd>)> {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let packet = socket::recv(self.socket.as_fd(), &mut buffer, FDS_MAX, Some(PATIENCE))?;
        if packet.len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((decode(&buffer[..packet.len]).map_err(io::Error::other)?, packet.fds))
    }

    /// Does what the next message says. False for `Ready`.
    ///
    /// # Errors
    /// As [`hear`](Self::hear), and where the node refuses.
    pub fn obey(&mut self) -> io::Result<bool> {
        let (message, fds) = self.hear()?;
        match message {
            ToHost::Offer { lane, worker, geometry } => {
                let [event, down, bulk, up, process] = <[OwnedFd; FDS_MAX]>::try_from(fds)
                    .map_err(|_| io::Error::other("an offer comes with five descriptors"))?;
                let (host, reader) = HostLane::new(Regions::map(geometry, [down, bulk, up])?);
                self.lanes.push(RawLane { number: lane, worker, process, host, event, reader, position: 0 });
                self.say(&FromHost::Mapped { lane })?;
            }
            ToHost::Functions { functions, .. } => {
                self.functions.extend(functions);
            }
            ToHost::Refused { reason } => return Err(io::Error::other(reason)),
            ToHost::Ready => return Ok(false),
            _ => {}
        }
        Ok(true)
    }

    /// The number of a function.
    ///
    /// # Panics
    /// Where there is no such function.
    #[must_use]
    pub fn function(&self, name: &str) -> u32 {
        self.functions.iter().find(|function| function.name == name).expect("a function").id
    }

    /// Reads until the node ends the connection; its last words.
    ///
    /// # Errors
    /// Where it does not end.
    pub fn last_words(&self) -> io::Result<String> {
        let mut last = String::new();
        loop {
            match self.hear() {
                Ok((ToHost::Refused { reason }, _)) => last = reason,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(last),
                Err(error) => return Err(error),
            }
        }
    }
}
