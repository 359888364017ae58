//! What one call runs with: stack, arena, response, and room for what belongs to it while it is suspended.
//!
//! A worker has a fixed number of contexts, made at its start. A call takes one when it starts and gives it back when it is over, so that many calls
//! may be suspended at a time and no more.
#![expect(unsafe_code, reason = "enters calls and hands their memory to host calls")]

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use microfaas_abi::{CALL_KEEPS_STATE, Call};
use microfaas_lane::message::META_ALIGN;
use microfaas_lane::worker::{Submission, WorkerLane};
use microfaas_preempt::{Entry, Exit, Stack, Suspended};

use crate::arena::Arena;
use crate::control::Lane;
use crate::host_calls::{Response, State};
use crate::instance::{Instance, SavedState};
use crate::private::Private;

/// See the module. Not to be moved while a call uses it: host calls and functions have pointers into it.
#[derive(Debug)]
pub struct Context {
    stack: Stack,
    arena: Arena,
    response: Response,
    saved: SavedState,
    message: Vec<u8>,
    message_len: u32,
    errno: i32,
    private: Private,
    /// The call's request and response are in private memory.
    copied: bool,
}

impl Context {
    /// Maps a context. Its pages come when touched.
    ///
    /// # Errors
    /// Where a size is out of range or the kernel refuses memory.
    pub fn new(stack_bytes: usize, arena_bytes: usize) -> io::Result<Self> {
        let stack = Stack::closed(stack_bytes)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e.to_string()))?;
        let arena = Arena::new(arena_bytes)?;
        let (response, saved) = (Response::default(), SavedState::default());
        let (message, private) = (Vec::new(), Private::default());
        Ok(Self { stack, arena, response, saved, message, message_len: 0, errno: 0, private, copied: false })
    }

    /// Prepares for a popped call: request and response in place, or in private memory where the host is not trusted. False where there is no memory for that.
    #[inline]
    #[must_use]
    pub fn prepare(&mut self, lane: &Lane, submission: &Submission) -> bool {
        if lane.copies {
            return self.prepare_private(&lane.end, submission);
        }
        self.prepare_in_place(&lane.end, submission);
        true
    }

    #[cold]
    fn prepare_private(&mut self, lane: &WorkerLane, submission: &Submission) -> bool {
        let out_capacity = lane.geometry().small_response_capacity();
        let overflow_capacity = lane.geometry().response_bytes as usize;
        let buffers = self.private.buffers(lane.request_len(submission), out_capacity, overflow_capacity);
        let Some(buffers) = buffers else { return false };
        // SAFETY: popped from this lane; the buffer is as long.
        unsafe { lane.copy_request(submission, buffers.request) };
        let (body_len, meta_len) = (submission.body_len as usize, submission.meta_len as usize);
        // An empty block has no place.
        let meta_at = if meta_len == 0 { 0 } else { body_len.next_multiple_of(META_ALIGN) };
        self.copied = true;
        self.response = Response {
            call: Call {
                body: buffers.request.as_ptr(),
                body_len,
                meta: buffers.request.as_ptr().wrapping_add(meta_at),
                meta_len,
                out: buffers.response.as_ptr(),
                out_capacity,
                out_body_len: 0,
                out_meta_len: 0,
                deadline_ns: submission.deadline_ns,
                flags: u64::from(submission.flags),
            },
            overflow: (buffers.overflow, overflow_capacity),
            overflowed: false,
            told_to_end: false,
        };
        true
    }

    #[inline]
    fn prepare_in_place(&mut self, lane: &WorkerLane, submission: &Submission) {
        // SAFETY: popped from this lane and not completed; the slices go to the call, which is over before the completion.
        let (body, meta) = unsafe { lane.request(submission) };
        let (out, out_capacity) = lane.small_response(submission.slot);
        self.response = Response {
            call: Call {
                body: body.as_ptr(),
                body_len: body.len(),
                meta: meta.as_ptr(),
                meta_len: meta.len(),
                out: out.as_ptr(),
                out_capacity,
                out_body_len: 0,
                out_meta_len: 0,
                deadline_ns: submission.deadline_ns,
                flags: u64::from(submission.flags),
            },
            overflow: lane.overflow_response(submission.slot),
            overflowed: false,
            told_to_end: false,
        };
    }

    /// Runs a function's entry on the prepared call.
    ///
    /// # Safety
    /// The entry is a module's, its instance is clean and current, and the caller resets instance and context when the call is over, however that comes.
    #[inline]
    pub unsafe fn start(&mut self, state: NonNull<State>, instance: &mut Instance, entry: Entry) -> Exit {
        let heap = match instance.own_heap() {
            None => &raw mut self.arena,
            Some(heap) => {
                self.response.call.flags |= CALL_KEEPS_STATE;
                heap
            }
        };
        // SAFETY: the response lives in this context, the heap there or in the instance; both stay where they are, and the worker does not touch them while the call
        // runs.
        unsafe { State::begin(state, heap, &raw mut self.response) };
        let call = (&raw mut self.response.call).cast::<c_void>();
        // SAFETY: the caller's promise; a worker has one thread that runs calls.
        unsafe { microfaas_preempt::run(&mut self.stack, entry, call) }
    }

    /// Runs an entry that is no call: `attach`, `init`. Allocations come from `arena`.
    ///
    /// # Safety
    /// As [`microfaas_preempt::run`]; where it is suspended, it is given up.
    pub unsafe fn start_apart(
        &mut self,
        state: NonNull<State>,
        arena: &mut Arena,
        entry: Entry,
        argument: *mut c_void,
    ) -> Exit {
        // SAFETY: the arena is borrowed for the run.
        unsafe { State::begin(state, arena, std::ptr::null_mut()) };
        // Also where the call before was told to end.
        // SAFETY: the state lives for ever, and no call runs.
        unsafe { state.as_ref() }.runtime.pending.store(0, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        let exit = unsafe { microfaas_preempt::run(&mut self.stack, entry, argument) };
        // SAFETY: it is over; one that was suspended is not resumed.
        unsafe { self.stack.clear() };
        exit
    }

    /// Keeps what the suspended call has in places that the next call will use.
    pub fn put_aside(&mut self, state: &State, instance: &mut Instance) {
        // SAFETY: the call is suspended.
        unsafe { instance.put_aside(&mut self.saved) };
        self.message.clear();
        // Whole, since the call may be in the middle of writing it and set its length afterwards.
        self.message.extend_from_slice(&state.runtime.message);
        self.message_len = state.runtime.message_len;
        self.errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    }

    /// Brings back what [`put_aside`](Self::put_aside) kept.
    pub fn bring_back(&self, state: &mut State, instance: &mut Instance) {
        // SAFETY: no call of the instance runs, and its state was kept from it.
        unsafe { instance.bring_back(&self.saved) };
        state.set_message(&self.message, self.message_len);
        nix::errno::Errno::set_raw(self.errno);
    }

    /// Gives the memory back in which the call's state was kept, if it was: for calls that may have had much.
    #[cold]
    pub fn give_back(&mut self) {
        self.saved = SavedState::default();
    }

    /// Continues the suspended call.
    ///
    /// # Safety
    /// It was suspended on this context, and its instance is current and as it left it; then as for [`start`](Self::start).
    pub unsafe fn resume(&mut self, state: NonNull<State>, instance: &mut Instance, at: Suspended) -> Exit {
        let heap = instance.own_heap().unwrap_or(&raw mut self.arena);
        // SAFETY: as in `start`.
        unsafe { State::choose(state, heap, &raw mut self.response) };
        // SAFETY: the caller's promise.
        unsafe { microfaas_preempt::resume(&mut self.stack, at) }
    }

    /// The response of a call that is over.
    #[must_use]
    pub fn response(&self) -> &Response {
        &self.response
    }

    /// Bytes of heap that [`reset`](Self::reset) makes zero.
    #[inline]
    #[must_use]
    pub fn reset_bytes(&self) -> usize {
        self.arena.dirty_bytes()
    }

    /// Forgets the call: what it allocated is gone, and all its memory is zero again, its stack included.
    ///
    /// # Safety
    /// The call is over or given up, and its instance was reset.
    #[inline]
    pub unsafe fn reset(&mut self) {
        // SAFETY: the caller's promise.
        unsafe { self.arena.reset() };
        // SAFETY: as above.
        unsafe { self.stack.clear() };
        if std::mem::take(&mut self.copied) {
            self.private.give_back(self.response.overflowed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::ARENA_BYTES_MIN;

    unsafe extern "C" fn pending(argument: *mut c_void) -> u32 {
        // SAFETY: the test passes its state.
        unsafe { argument.cast::<State>().as_ref() }.map_or(7, |s| s.runtime.pending.load(Ordering::Relaxed))
    }

    #[test]
    fn what_is_no_call_is_not_told_to_end_since_the_call_before_was() {
        let _handlers = microfaas_preempt::contain::install(None).unwrap();
        let state = State::install();
        let mut context = Context::new(microfaas_preempt::STACK_BYTES_MIN, ARENA_BYTES_MIN).unwrap();
        let mut arena = Arena::new(ARENA_BYTES_MIN).unwrap();
        // SAFETY: no call runs.
        unsafe { state.as_ref() }.runtime.pending.store(1, Ordering::Relaxed);
        // SAFETY: the entry takes the state and leaves nothing.
        let exit = unsafe { context.start_apart(state, &mut arena, pending, state.as_ptr().cast()) };
        assert_eq!(exit, Exit::Returned(0));
    }
}
