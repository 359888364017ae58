//! The three regions of a lane: made, sealed, mapped, and their large buffers given back.
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

/// What the worker gets of it.
#[derive(Debug)]
pub(crate) struct WorkerFds {
    pub(crate) down: OwnedFd,
    pub(crate) bulk: OwnedFd,
    pub(crate) up: OwnedFd,
}

impl LaneMemory {
    /// Makes the regions of a checked geometry. What small calls touch is populated; the rest comes when touched.
    pub(crate) fn create(geometry: Geometry) -> io::Result<(Self, WorkerFds)> {
        let (down_fd, down) = region(c"microfaas-down", geometry.down_bytes(), geometry.down_bytes())?;
        let (bulk_fd, bulk) = region(c"microfaas-bulk", geometry.bulk_bytes(), size_of::<Header>())?;
        let (up_fd, up) = region(c"microfaas-up", geometry.up_bytes(), geometry.resident_up_bytes())?;
        for (mapping, region) in [(&down, Region::Down), (&bulk, Region::Bulk), (&up, Region::Up)] {
            write_header(mapping, geometry.header(region));
        }
        memfd::seal(down_fd.as_fd(), Seals::NO_NEW_WRITER)?;
        memfd::seal(bulk_fd.as_fd(), Seals::SIZE)?;
        memfd::seal(up_fd.as_fd(), Seals::SIZE)?;
        let fds = WorkerFds {
            down: memfd::reopen_read_only(down_fd.as_fd())?,
            bulk: memfd::reopen_read_only(bulk_fd.as_fd())?,
            up: up_fd.try_clone()?,
        };
        let records = (0..geometry.slots()).map(|_| Record::default()).collect();
        Ok((Self { geometry, down, bulk, up, bulk_fd, up_fd, records }, fds))
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

fn region(name: &std::ffi::CStr, bytes: usize, populate: usize) -> io::Result<(OwnedFd, Mapping)> {
    let fd = memfd::create(name, bytes as u64)?;
    let mapping = Mapping::shared_rw(fd.as_fd(), bytes, populate)?;
    Ok((fd, mapping))
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
// long as the value; they were zero but for the header. No slice of them is ever made here. Down is sealed against new writers and bulk is handed
// out by a read-only descriptor and are mapped before the worker is sealed in, so this process alone writes them (for bulk that holds as long as the sandbox does). The geometry was checked and never changes; the box of records never moves.
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
