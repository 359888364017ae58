//! Runs one call, from the claimed submission to the clean state after it.
#![expect(unsafe_code, reason = "enters modules and hands out buffers of the lane")]

use std::ffi::c_void;
use std::io;
use std::ptr::NonNull;

use microfaas_abi::{Call, OUTCOME_ERROR, OUTCOME_OK};
use microfaas_lane::Status;
use microfaas_lane::message::message_len;
use microfaas_lane::worker::{Completion, Submission, WorkerLane};
use microfaas_preempt::contain::Fault;
use microfaas_preempt::{Ending, Entry, Exit, Stack};
use microfaas_sys::clock::{CycleClock, cycles};

use crate::arena::Arena;
use crate::host_calls::{LEFT_OOM, LEFT_TOO_LARGE, State};
use crate::instance::Instance;
use crate::loader::CallEntry;

/// What calls run with: the stack, the arena, the state of host calls. One of each, as one call runs at a time.
#[derive(Debug)]
pub struct Executor {
    stack: Stack,
    arena: Box<Arena>,
    state: NonNull<State>,
    arena_bytes: usize,
}

/// What the worker has to do after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum After {
    /// Go on.
    Serve,
    /// Memory can no longer be trusted: stop serving, be replaced.
    Retire(Fault),
}

/// An answer in the slot's buffer.
struct Answer {
    status: Status,
    body_len: usize,
    meta_len: usize,
    overflow: bool,
}

impl Executor {
    /// Maps stack and arena.
    ///
    /// # Errors
    /// Where a size is out of range or the kernel refuses memory.
    pub fn new(stack_bytes: usize, arena_bytes: usize) -> io::Result<Self> {
        let stack = Stack::new(stack_bytes)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e.to_string()))?;
        Ok(Self { stack, arena: Box::new(Arena::new(arena_bytes)?), state: State::install(), arena_bytes })
    }

    /// The state of host calls.
    #[must_use]
    pub fn state(&self) -> NonNull<State> {
        self.state
    }

    /// Runs an entry on the call stack.
    ///
    /// # Safety
    /// As [`microfaas_preempt::run`].
    #[inline]
    pub unsafe fn run(&mut self, entry: Entry, argument: *mut c_void) -> Exit {
        // SAFETY: the caller's promise; a worker has one thread that runs calls.
        unsafe { microfaas_preempt::run(&mut self.stack, entry, argument) }
    }

    /// Runs a claimed call and publishes its completion, then makes everything that it touched as it was before.
    ///
    /// # Cost
    /// About 60 ns beside the function: stack switch, two readings of the cycle counter, reset of instance and arena.
    #[inline]
    pub fn call(
        &mut self,
        lane: &mut WorkerLane,
        submission: &Submission,
        entry: CallEntry,
        instance: &mut Instance,
        clock: &CycleClock,
    ) -> After {
        self.prepare(lane, submission);
        instance.enter();
        // SAFETY: function pointers that differ only in the type that a pointer argument points to are compatible.
        let entry = unsafe { std::mem::transmute::<CallEntry, Entry>(entry) };
        // SAFETY: the state lives for ever, so the pointer to its field is in bounds.
        let call = unsafe { &raw mut (*self.state.as_ptr()).call };
        let start = cycles();
        // SAFETY: the module's entry takes the call; whatever the call leaves half done in the instance, the arena or the stack is reset below, and
        // its response is not sent unless it returned.
        let exit = unsafe { self.run(entry, call.cast()) };
        let cpu_ns = clock.to_ns(cycles().wrapping_sub(start));
        let answer = self.answer(lane, submission.slot, exit);
        publish(lane, submission, &answer, cpu_ns);
        let after = match exit {
            Exit::Ended(Ending::Fault(fault)) if fault.breaks_memory_safety() => After::Retire(fault),
            _ => After::Serve,
        };
        // SAFETY: the call is over.
        unsafe { instance.reset() };
        // SAFETY: as above: no block of the arena is used any more.
        unsafe { self.arena.reset() };
        after
    }

    fn prepare(&mut self, lane: &WorkerLane, submission: &Submission) {
        // SAFETY: popped from this lane and not completed; the slices go to the call, which is over before the completion.
        let (body, meta) = unsafe { lane.request(submission) };
        let (out, out_capacity) = lane.small_response(submission.slot);
        // SAFETY: between calls the state is the worker's alone.
        let state = unsafe { self.state.as_mut() };
        state.call = Call {
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
        };
        state.runtime.call = &raw mut state.call;
        state.overflow = lane.overflow_response(submission.slot);
        state.overflowed = false;
        // SAFETY: the arena is in a box of this executor, and the worker does not touch it while the call runs.
        unsafe { state.use_arena(&raw mut *self.arena) };
    }

    /// What goes back to the host: the function's own answer, or a text in its place.
    #[inline]
    fn answer(&mut self, lane: &WorkerLane, slot: u32, exit: Exit) -> Answer {
        // SAFETY: the call is over, so the state is the worker's alone.
        let state = unsafe { self.state.as_mut() };
        let status = match exit {
            Exit::Returned(OUTCOME_OK) => Status::Ok,
            Exit::Returned(OUTCOME_ERROR) => Status::Error,
            Exit::Returned(_) => return text(lane, slot, Status::Panic, state.message()),
            Exit::Ended(ending) => return self.ended(lane, slot, ending),
        };
        let call = &state.call;
        match message_len(call.out_body_len, call.out_meta_len) {
            Some(len) if len <= call.out_capacity => {}
            _ => return text(lane, slot, Status::Fault, "the module gave a response longer than its buffer"),
        }
        Answer {
            status,
            body_len: call.out_body_len,
            meta_len: call.out_meta_len,
            overflow: state.overflowed,
        }
    }

    #[cold]
    fn ended(&self, lane: &WorkerLane, slot: u32, ending: Ending) -> Answer {
        let mut buffer = TextBuffer::default();
        use std::fmt::Write as _;
        let status = match ending {
            Ending::HostCall(LEFT_OOM) => {
                let _ = write!(buffer, "out of memory: a call may use {} bytes of heap", self.arena_bytes);
                Status::Oom
            }
            Ending::HostCall(LEFT_TOO_LARGE) => {
                let _ = write!(buffer, "response over {} bytes", lane.geometry().response_bytes);
                Status::TooLarge
            }
            Ending::HostCall(code) => {
                let _ = write!(buffer, "ended by host call {code}");
                Status::Fault
            }
            Ending::Fault(Fault::SystemCall) => {
                let _ = buffer.write_str(Fault::SystemCall.describe());
                Status::Denied
            }
            Ending::Fault(fault) => {
                let _ = buffer.write_str(fault.describe());
                Status::Fault
            }
        };
        text(lane, slot, status, buffer.as_str())
    }
}

/// Publishes the completion of a call that did not run, with a text.
pub fn refuse(lane: &mut WorkerLane, submission: &Submission, status: Status, reason: &str) {
    let answer = text(lane, submission.slot, status, reason);
    publish(lane, submission, &answer, 0);
}

#[inline]
fn publish(lane: &mut WorkerLane, submission: &Submission, answer: &Answer, cpu_ns: u64) {
    // Both lengths were checked against a buffer of less than 4 GiB.
    let len = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    lane.complete(&Completion {
        slot: submission.slot,
        generation: submission.generation,
        status: answer.status,
        body_len: len(answer.body_len),
        meta_len: len(answer.meta_len),
        overflow: answer.overflow,
        cpu_ns,
    });
}

/// Puts a text into the slot's small buffer.
fn text(lane: &WorkerLane, slot: u32, status: Status, text: &str) -> Answer {
    let (buffer, capacity) = lane.small_response(slot);
    let len = text.floor_char_boundary(capacity);
    // SAFETY: the slot is the worker's until the completion, and the buffer has that many bytes.
    unsafe { buffer.as_ptr().copy_from_nonoverlapping(text.as_ptr(), len) };
    Answer { status, body_len: len, meta_len: 0, overflow: false }
}

/// A short text without allocation.
struct TextBuffer {
    bytes: [u8; 160],
    len: usize,
}

impl Default for TextBuffer {
    fn default() -> Self {
        Self { bytes: [0; 160], len: 0 }
    }
}

impl TextBuffer {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or("")
    }
}

impl std::fmt::Write for TextBuffer {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let len = text.floor_char_boundary(self.bytes.len() - self.len);
        self.bytes[self.len..self.len + len].copy_from_slice(&text.as_bytes()[..len]);
        self.len += len;
        Ok(())
    }
}
