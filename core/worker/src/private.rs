//! Memory of the worker's own for the request and the response of a call whose host is not trusted.
//!
//! A function borrows its request, and safe code relies on what is borrowed not to change; so it does on the response that it has written so far. A host
//! that is not trusted may change both at any time. So its requests are copied before the function sees them, and responses when it has ended.
//! Made at the first such call of a context; what is large is given back after the call.
#![expect(unsafe_code, reason = "raw memory that functions borrow")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// Bytes of a request buffer that is kept for the next call.
const KEEP_BYTES: usize = 64 << 10;
const ALIGN: usize = 64;

/// Zeroed memory whose pages come when touched.
#[derive(Debug)]
struct Buffer {
    start: NonNull<u8>,
    layout: Layout,
}

impl Buffer {
    /// `None` where there is no memory.
    fn new(bytes: usize) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.max(ALIGN), ALIGN).ok()?;
        // SAFETY: not empty.
        let start = unsafe { alloc_zeroed(layout) };
        Some(Self { start: NonNull::new(start)?, layout })
    }

    /// Makes sure of at least this size; the contents are lost where it grows.
    fn ensure(slot: &mut Option<Self>, bytes: usize) -> Option<NonNull<u8>> {
        if slot.as_ref().is_none_or(|buffer| buffer.layout.size() < bytes) {
            // The old one first.
            *slot = None;
            *slot = Some(Self::new(bytes.next_power_of_two())?);
        }
        slot.as_ref().map(|buffer| buffer.start)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and given back once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Private {
    request: Option<Buffer>,
    response: Option<Buffer>,
    overflow: Option<Buffer>,
}

/// What one call gets.
#[derive(Debug, Clone, Copy)]
pub struct Buffers {
    /// Room for the request.
    pub request: NonNull<u8>,
    /// Room for a small response.
    pub response: NonNull<u8>,
    /// Room for one that outgrows it.
    pub overflow: NonNull<u8>,
}

impl Private {
    /// Buffers of at least these sizes, until the next call of this; `None` where there is no memory.
    pub fn buffers(&mut self, request: usize, response: usize, overflow: usize) -> Option<Buffers> {
        Some(Buffers {
            request: Buffer::ensure(&mut self.request, request)?,
            response: Buffer::ensure(&mut self.response, response)?,
            overflow: Buffer::ensure(&mut self.overflow, overflow)?,
        })
    }

    /// The call is over; `overflowed`: its response was a large one.
    pub fn give_back(&mut self, overflowed: bool) {
        self.request.take_if(|buffer| buffer.layout.size() > KEEP_BYTES);
        if overflowed {
            self.overflow = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_stay_while_they_are_large_enough_and_small() {
        let mut private = Private::default();
        let first = private.buffers(100, 4096, 1 << 20).unwrap();
        let second = private.buffers(64, 4096, 1 << 20).unwrap();
        assert_eq!((first.request, first.overflow), (second.request, second.overflow));
        // SAFETY: a live buffer of as many bytes.
        unsafe { first.overflow.as_ptr().wrapping_add((1 << 20) - 1).write(1) };
        private.give_back(true);
        let third = private.buffers(1 << 20, 4096, 1 << 20).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { third.overflow.as_ptr().wrapping_add((1 << 20) - 1).read() }, 0);
        private.give_back(false);
        assert!(private.request.is_none() && private.response.is_some());
        assert!(private.buffers(usize::MAX / 4, 1, 1).is_none());
    }
}
