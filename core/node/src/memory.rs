//! The three regions of a lane: made, mapped, sealed, and their large buffers given back.
//!
//! The node makes the files, and the host maps them: in one process, or in two. Their sizes are sealed when they are made. Down is sealed against new
//! writers when its one writer has mapped it; only then the worker gets a descriptor of it.
#![expect(unsafe_code, reason = "promises about mappings to the lane, and writes their headers")]

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use microfaas_lane::host::Memory;
use microfaas_lane::layout::{Geometry, Header, Region};
use microfaas_lane::slots::Record;
use microfaas_sys::mapping::Mapping;
use microfaas_sys::memfd::{self, Seals};

/// The memory of one lane as the host holds it.
#[derive(Debug)]
pub(crate) struct LaneMemory {
    geometry: Geometry,
    down: Mapping,
    bulk: Mapping,
    up: Mapping,
    bulk_fd: OwnedFd,
    up_fd: OwnedFd,
    records: Box<[Record]>,
}

/// Descriptors of the three regions: those that a host maps, or those that its worker gets.
#[derive(Debug)]
pub(crate) struct RegionFds {
    pub(crate) down: OwnedFd,
    pub(crate) bulk: OwnedFd,
    pub(crate) up: OwnedFd,
}

impl RegionFds {
    /// Makes the regions of a checked geometry, for a host to map.
    pub(crate) fn create(geometry: &Geometry) -> io::Result<Self> {
        let fds = Self {
            down: memfd::create(c"microfaas-down", geometry.down_bytes() as u64)?,
            bulk: memfd::create(c"microfaas-bulk", geometry.bulk_bytes() as u64)?,
            up: memfd::create(c"microfaas-up", geometry.up_bytes() as u64)?,
        };
        memfd::seal(fds.down.as_fd(), Seals { seal: false, ..Seals::SIZE })?;
        memfd::seal(fds.bulk.as_fd(), Seals::SIZE)?;
        memfd::seal(fds.up.as_fd(), Seals::SIZE)?;
        Ok(fds)
    }

    /// Those that the worker gets, once the host has mapped these: it can write to up alone.
    ///
    /// # Errors
    /// Also where the host has seen to it that down cannot be sealed.
    pub(crate) fn for_worker(&self) -> io::Result<Self> {
        memfd::seal(self.down.as_fd(), Seals::NO_NEW_WRITER)?;
        Ok(Self {
            down: memfd::reopen_read_only(self.down.as_fd())?,
            bulk: memfd::reopen_read_only(self.bulk.as_fd())?,
            up: self.up.try_clone()?,
        })
    }
}

impl LaneMemory {
    /// Makes and maps the regions of a checked geometry.
    pub(crate) fn create(geometry: Geometry) -> io::Result<(Self, RegionFds)> {
        let fds = RegionFds::create(&geometry)?;
        // What the worker gets is sealed off after this process has mapped it.
        let copies =
            RegionFds { down: fds.down.try_clone()?, bulk: fds.bulk.try_clone()?, up: fds.up.try_clone()? };
        let memory = Self::map(geometry, fds)?;
        Ok((memory, copies.for_worker()?))
    }

    /// Maps the regions of a checked geometry, and writes their headers. What small calls touch is populated; the rest comes when touched.
    pub(crate) fn map(geometry: Geometry, fds: RegionFds) -> io::Result<Self> {
        let map = |fd: &OwnedFd, bytes: usize, populate: usize| {
            if memfd::bytes(fd.as_fd())? != bytes as u64 {
                return Err(io::Error::other("a region of another size"));
            }
            let mapping = Mapping::shared_rw(fd.as_fd(), bytes, populate)?;
            // A child would write submissions of its own among its parent's.
            mapping.keep_from_children()?;
            Ok(mapping)
        };
        let down = map(&fds.down, geometry.down_bytes(), geometry.down_bytes())?;
        let bulk = map(&fds.bulk, geometry.bulk_bytes(), size_of::<Header>())?;
        let up = map(&fds.up, geometry.up_bytes(), geometry.resident_up_bytes())?;
        for (mapping, region) in [(&down, Region::Down), (&bulk, Region::Bulk), (&up, Region::Up)] {
            write_header(mapping, geometry.header(region));
        }
        let records = (0..geometry.slots()).map(|_| Record::default()).collect();
        Ok(Self { geometry, down, bulk, up, bulk_fd: fds.bulk, up_fd: fds.up, records })
    }

    /// Gives back what a large slot's request has touched beyond its first `keep` bytes.
    pub(crate) fn give_back_request(&self, slot: u32, keep: u64, touched: u64) {
        let start = self.geometry.request_offset(slot) as u64;
        give_back(&self.bulk_fd, start + keep..start + touched);
    }

    /// As [`give_back_request`](Self::give_back_request), of a slot's overflow buffer.
    pub(crate) fn give_back_response(&self, slot: u32, keep: u64, touched: u64) {
        let start = self.geometry.overflow_offset(slot) as u64;
        give_back(&self.up_fd, start + keep..start + touched);
    }
}

fn write_header(mapping: &Mapping, header: Header) {
    assert!(mapping.len() >= size_of::<Header>());
    // SAFETY: long enough as just checked, aligned to a page, writable, and known to nobody else yet.
    unsafe { mapping.base().cast::<Header>().write(header) };
}

/// Whole pages only. Memory that is not given back stays committed, which is no error of the call.
fn give_back(fd: &OwnedFd, range: Range<u64>) {
    let start = range.start.next_multiple_of(4096);
    if start < range.end
        && let Err(error) = memfd::give_back(fd.as_fd(), start..range.end.next_multiple_of(4096))
    {
        tracing::debug!(%error, "a large buffer's memory could not be given back");
    }
}

// SAFETY: the three mappings are as long as the geometry says, page-aligned, readable and writable, of files whose sizes are sealed, and live as
// long as the value; they were zero but for the header (the node, whom the host trusts, made them for this lane alone). No slice of them is ever made here. Down is sealed against new writers and bulk is handed
// out by a read-only descriptor, which a sealed worker cannot open again for writing, so this process alone writes them (for bulk that holds as long as the sandbox does). The geometry was checked and never changes; the box of records never moves.
unsafe impl Memory for LaneMemory {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn base(&self, region: Region) -> NonNull<u8> {
        match region {
            Region::Down => self.down.base(),
            Region::Bulk => self.bulk.base(),
            Region::Up => self.up.base(),
        }
    }

    unsafe fn records(&self) -> &[Record] {
        &self.records
    }
}
