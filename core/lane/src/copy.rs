//! Copies out of memory that the other side may be writing.
#![expect(unsafe_code, reason = "raw copies between mapped memory and private memory")]

/// Copies `len` bytes out of a region that a hostile side may write at the same time. What arrives is some mixture of what it
/// wrote; nothing is read twice and nothing outside is read.
///
/// The copy is one opaque instruction, so the compiler cannot assume that the source is stable, nor read it again. Elsewhere, and under
/// a fuzzer, whose address sanitizer does not see into it, it is a loop of volatile reads.
///
/// # Safety
/// - `from..from + len` is mapped and readable, and stays so.
/// - `to..to + len` is writable private memory that nobody else refers to.
#[inline]
pub(crate) unsafe fn copy_out(from: *const u8, to: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(any(miri, fuzzing))))]
    // SAFETY: `rep movsb` reads `len` bytes at `from` and writes them at `to`, both valid by the contract; the
    // direction flag is clear by the ABI; the block names every register that it changes.
    unsafe {
        core::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(not(all(target_arch = "x86_64", not(any(miri, fuzzing)))))]
    for i in 0..len {
        // SAFETY: `i < len`, inside the readable range.
        let source = unsafe { from.add(i) };
        // SAFETY: as above.
        let byte = unsafe { source.read_volatile() };
        // SAFETY: `i < len`, inside the writable range.
        let target = unsafe { to.add(i) };
        // SAFETY: as above.
        unsafe { target.write(byte) };
    }
}
