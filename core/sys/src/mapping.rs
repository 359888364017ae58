//! Shared mappings of files. A mapping hands out an address, never a slice: who may read and write the memory is its user's affair.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use memmap2::{Advice, MmapOptions, MmapRaw};

/// A mapping; dropping it unmaps. It keeps the file alive without its descriptor.
#[derive(Debug)]
pub struct Mapping {
    raw: MmapRaw,
    writable: bool,
}

impl Mapping {
    /// Maps the first `len` bytes of a file for reading and writing, and faults the first `populate_bytes` of them in.
    /// Touching what lies beyond the end of the file is a `SIGBUS`: map sealed files.
    ///
    /// # Errors
    /// As `mmap(2)`: `EPERM` for a file sealed against writing, `EACCES` for a descriptor that cannot write; `ENOMEM`.
    pub fn shared_rw(fd: BorrowedFd<'_>, len: usize, populate_bytes: usize) -> io::Result<Self> {
        let raw = MmapOptions::new().len(len).map_raw(fd.as_raw_fd())?;
        let mapping = Self { raw, writable: true };
        if populate_bytes > 0 {
            mapping.populate(0..populate_bytes)?;
        }
        Ok(mapping)
    }

    /// Maps the first `len` bytes of a file for reading.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub fn shared_ro(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let raw = MmapOptions::new().len(len).map_raw_read_only(fd.as_raw_fd())?;
        Ok(Self { raw, writable: false })
    }

    /// First byte, aligned to a page.
    ///
    /// # Panics
    /// Never: nothing is mapped at address 0.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        NonNull::new(self.raw.as_mut_ptr()).expect("nothing is mapped at address 0")
    }

    /// Bytes mapped.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an empty mapping does not exist")]
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// A child that is forked does not have it: the same memory is not written by two who take themselves for the only one, and a fork has less to copy.
    ///
    /// # Errors
    /// As `madvise(2)`.
    pub fn keep_from_children(&self) -> io::Result<()> {
        self.raw.advise(Advice::DontFork)
    }

    /// Faults the pages of a byte range in, so that the first touch costs nothing later. Linux 5.14.
    ///
    /// # Errors
    /// `EINVAL` for a range outside the mapping or on an older kernel; `EFAULT`, `ENOMEM` where memory cannot be had.
    pub fn populate(&self, range: Range<usize>) -> io::Result<()> {
        if range.end > self.len() || range.start > range.end {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let advice = if self.writable { Advice::PopulateWrite } else { Advice::PopulateRead };
        self.raw.advise_range(advice, range.start, range.end - range.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memfd;
    use std::os::fd::AsFd;

    #[test]
    fn what_is_kept_from_children_is_not_copied_by_a_fork() {
        let fd = memfd::create(c"microfaas-test", 4096).unwrap();
        let mapping = Mapping::shared_rw(fd.as_fd(), 4096, 0).unwrap();
        let is_kept = || {
            let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let start = format!("{:x}-", mapping.base().addr());
            let mut lines = maps.lines().skip_while(|line| !line.starts_with(&start));
            let flags = lines.find(|line| line.starts_with("VmFlags:")).unwrap();
            flags.split_whitespace().any(|flag| flag == "dc")
        };
        assert!(!is_kept());
        mapping.keep_from_children().unwrap();
        assert!(is_kept());
    }

    #[test]
    fn populating_commits_exactly_what_was_asked_for() {
        let fd = memfd::create(c"microfaas-test", 1 << 20).unwrap();
        let mapping = Mapping::shared_rw(fd.as_fd(), 1 << 20, 8192).unwrap();
        assert_eq!(nix::sys::stat::fstat(&fd).unwrap().st_blocks * 512, 8192);
        mapping.populate(65_536..65_536 + 4096).unwrap();
        assert_eq!(nix::sys::stat::fstat(&fd).unwrap().st_blocks * 512, 8192 + 4096);
        assert!(mapping.populate(0..(1 << 20) + 1).is_err());
        assert_eq!(mapping.base().addr().get() % 4096, 0);
    }
}
