//! Anonymous files in memory, and the seals that keep the other side from changing them. See `memfd_create(2)`.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::ftruncate;

/// What may no longer be done to the file by anybody, for ever. See `fcntl(2)`, "File Sealing".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seals {
    /// Make it shorter.
    pub shrink: bool,
    /// Make it longer.
    pub grow: bool,
    /// Write it in a new way: a new writable mapping, `write`, or punching holes. Writable shared mappings that exist go on working.
    pub future_write: bool,
    /// Write it at all; refused with `EBUSY` while a writable shared mapping exists.
    pub write: bool,
    /// Add further seals.
    pub seal: bool,
}

impl Seals {
    /// Neither length nor seals change any more; contents do.
    pub const SIZE: Self = Self { shrink: true, grow: true, future_write: false, write: false, seal: true };
    /// As [`SIZE`](Self::SIZE), and only mappings that exist already can write.
    pub const NO_NEW_WRITER: Self = Self { future_write: true, ..Self::SIZE };
    /// Nothing changes any more.
    pub const ALL: Self = Self { write: true, ..Self::SIZE };

    fn bits(self) -> SealFlag {
        let pairs = [
            (self.shrink, SealFlag::F_SEAL_SHRINK),
            (self.grow, SealFlag::F_SEAL_GROW),
            (self.future_write, SealFlag::F_SEAL_FUTURE_WRITE),
            (self.write, SealFlag::F_SEAL_WRITE),
            (self.seal, SealFlag::F_SEAL_SEAL),
        ];
        pairs.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag).collect()
    }
}

/// Creates a zero-filled file of `bytes` bytes; memory is committed where it is touched. The descriptor is close-on-exec,
/// can be sealed, and where the kernel knows how (6.3) can never be executed as a program.
///
/// # Errors
/// As `memfd_create(2)` and `ftruncate(2)`: out of descriptors or memory, or `bytes` beyond the signed 64-bit range.
pub fn create(name: &CStr, bytes: u64) -> io::Result<OwnedFd> {
    let fd = memfd(name, libc::MFD_NOEXEC_SEAL)?;
    let bytes = libc::off_t::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    ftruncate(&fd, bytes)?;
    Ok(fd)
}

/// Tries with the flag of a younger kernel, then without it (`EINVAL` from an older one).
fn memfd(name: &CStr, young: libc::c_uint) -> io::Result<OwnedFd> {
    let base = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    match memfd_create(name, base | MFdFlags::from_bits_retain(young)) {
        Err(Errno::EINVAL) => Ok(memfd_create(name, base)?),
        other => Ok(other?),
    }
}

/// Copies everything that `source` yields into a new file that nobody can change any more; it may be mapped executable.
///
/// # Errors
/// As `memfd_create(2)`, reading `source`, and writing memory.
pub fn sealed_copy(name: &CStr, source: &mut impl Read) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd(name, libc::MFD_EXEC)?);
    io::copy(source, &mut file)?;
    file.flush()?;
    seal(file.as_fd(), Seals::ALL)?;
    Ok(file.into())
}

/// As [`sealed_copy`], of bytes in memory.
///
/// # Errors
/// As `memfd_create(2)` and writing memory.
pub fn from_bytes(name: &CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    sealed_copy(name, &mut &*bytes)
}

/// Adds seals; those that are there stay.
///
/// # Errors
/// `EPERM` where [`Seals::seal`] is set already, `EBUSY` for [`Seals::write`] while a writable mapping exists.
pub fn seal(fd: BorrowedFd<'_>, seals: Seals) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_ADD_SEALS(seals.bits()))?;
    Ok(())
}

/// The seals of a file.
///
/// # Errors
/// `EINVAL` where the file cannot have any.
pub fn seals(fd: BorrowedFd<'_>) -> io::Result<Seals> {
    let bits = SealFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GET_SEALS)?);
    Ok(Seals {
        shrink: bits.contains(SealFlag::F_SEAL_SHRINK),
        grow: bits.contains(SealFlag::F_SEAL_GROW),
        future_write: bits.contains(SealFlag::F_SEAL_FUTURE_WRITE),
        write: bits.contains(SealFlag::F_SEAL_WRITE),
        seal: bits.contains(SealFlag::F_SEAL_SEAL),
    })
}

/// Length of a file in bytes.
///
/// # Errors
/// As `fstat(2)`.
pub fn bytes(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let status = nix::sys::stat::fstat(fd)?;
    Ok(u64::try_from(status.st_size).unwrap_or(0))
}

/// A second descriptor of the file that can only read, and cannot be mapped writable. It does not stop its holder from opening the
/// file again through `/proc`, which is for a sandbox to forbid.
///
/// # Errors
/// As opening `/proc/self/fd/N`, which needs `/proc` to be mounted.
pub fn reopen_read_only(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok(OpenOptions::new().read(true).open(path)?.into())
}

/// Gives the memory of a byte range back; it reads as zero afterwards. Whole pages go, parts of pages are zeroed.
///
/// # Errors
/// `EPERM` on a file sealed against writing, `EINVAL` for an empty range.
pub fn give_back(fd: BorrowedFd<'_>, range: Range<u64>) -> io::Result<()> {
    let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
    let start = libc::off_t::try_from(range.start).map_err(|_| invalid())?;
    let end = libc::off_t::try_from(range.end).map_err(|_| invalid())?;
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    Ok(fallocate(fd, mode, start, end.saturating_sub(start))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::Mapping;

    const NAME: &CStr = c"microfaas-test";

    #[test]
    fn a_sealed_size_stays() {
        let fd = create(NAME, 8192).unwrap();
        seal(fd.as_fd(), Seals::SIZE).unwrap();
        assert_eq!(seals(fd.as_fd()).unwrap(), Seals::SIZE);
        assert_eq!(bytes(fd.as_fd()).unwrap(), 8192);
        assert!(ftruncate(&fd, 4096).is_err());
        assert!(ftruncate(&fd, 16384).is_err());
        assert!(seal(fd.as_fd(), Seals::ALL).is_err(), "a seal could be added after the last one");
    }

    #[test]
    fn no_new_writer_after_the_seal_but_the_old_one_writes_on() {
        let fd = create(NAME, 4096).unwrap();
        let writer = Mapping::shared_rw(fd.as_fd(), 4096, 4096).unwrap();
        seal(fd.as_fd(), Seals::NO_NEW_WRITER).unwrap();
        assert!(Mapping::shared_rw(fd.as_fd(), 4096, 0).is_err());
        assert!(nix::unistd::write(&fd, b"x").is_err());
        let reader = Mapping::shared_ro(fd.as_fd(), 4096).unwrap();
        assert_eq!((writer.len(), reader.len()), (4096, 4096));
    }

    #[test]
    fn a_read_only_descriptor_maps_read_only() {
        let fd = create(NAME, 4096).unwrap();
        let read_only = reopen_read_only(fd.as_fd()).unwrap();
        assert!(Mapping::shared_rw(read_only.as_fd(), 4096, 0).is_err());
        assert!(Mapping::shared_ro(read_only.as_fd(), 4096).is_ok());
    }

    #[test]
    fn a_copy_is_complete_and_final() {
        let fd = from_bytes(NAME, b"a module").unwrap();
        assert_eq!(seals(fd.as_fd()).unwrap(), Seals::ALL);
        assert_eq!(std::fs::read(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap(), b"a module");
        assert!(nix::unistd::write(&fd, b"x").is_err());
    }

    #[test]
    fn given_back_memory_is_gone() {
        let fd = create(NAME, 1 << 20).unwrap();
        let mapping = Mapping::shared_rw(fd.as_fd(), 1 << 20, 1 << 20).unwrap();
        let blocks = || nix::sys::stat::fstat(&fd).unwrap().st_blocks;
        let all = blocks();
        give_back(fd.as_fd(), 65_536..1 << 20).unwrap();
        assert_eq!(blocks(), all / 16);
        assert!(give_back(fd.as_fd(), 0..0).is_err());
        drop(mapping);
    }
}
