//! For how long the kernel lets a thread run before another one's turn comes, where several want one core. See `sched_setattr(2)` and `sched(7)`.
#![expect(unsafe_code, reason = "system calls that no crate wraps")]

use std::io;
use std::mem::size_of;
use std::time::Duration;

use nix::errno::Errno;

/// Asks for short slices for the calling thread, and for the threads and processes that it starts from now on: it gets no more of a core for it, it gets its
/// share in smaller pieces, and the core sooner when it wakes beside threads with longer ones. What the thread has otherwise (policy, nice value) stays.
///
/// Linux before 6.12 takes the call and does nothing for it. A thread under a real-time policy is left as it is: it does not wait for such a turn.
///
/// # Errors
/// As the system calls; `EPERM` where a filter forbids them.
pub fn shorten(slice: Duration) -> io::Result<()> {
    let mut attributes = get()?;
    if ![libc::SCHED_OTHER, libc::SCHED_BATCH]
        .map(libc::c_int::cast_unsigned)
        .contains(&attributes.sched_policy)
    {
        return Ok(());
    }
    attributes.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the kernel reads a structure of the size that it has in its first field, and changes the calling thread.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })?;
    Ok(())
}

fn get() -> io::Result<libc::sched_attr> {
    let size = size_of::<libc::sched_attr>();
    // SAFETY: a structure of numbers, for which all zeros are values.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most `size` bytes, which is what is there.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) })?;
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_slice_changes_and_children_inherit_it() {
        std::thread::spawn(|| {
            let before = get().unwrap();
            shorten(Duration::from_micros(200)).unwrap();
            let after = get().unwrap();
            assert_eq!((after.sched_policy, after.sched_nice), (before.sched_policy, before.sched_nice));
            // Nothing where the kernel knows no slices of a thread's own; as before where the thread is of a class that has none.
            let is_fair = [libc::SCHED_OTHER, libc::SCHED_BATCH]
                .map(libc::c_int::cast_unsigned)
                .contains(&before.sched_policy);
            let expected = if is_fair { 200_000 } else { before.sched_runtime };
            assert!([0, expected].contains(&after.sched_runtime), "{}", after.sched_runtime);
            let inherited = std::thread::spawn(|| get().unwrap().sched_runtime).join().unwrap();
            assert_eq!(inherited, after.sched_runtime);
        })
        .join()
        .unwrap();
    }
}
