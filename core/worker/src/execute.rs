//! From the end of a call to its completion.
#![expect(unsafe_code, reason = "writes texts into buffers of the lane")]

use std::fmt::Write as _;

use microfaas_abi::{OUTCOME_ERROR, OUTCOME_OK};
use microfaas_lane::Status;
use microfaas_lane::message::message_len;
use microfaas_lane::worker::{Completion, Submission};
use microfaas_preempt::Ending;
use microfaas_preempt::contain::Fault;

use crate::control::Lane;
use crate::host_calls::{LEFT_OOM, LEFT_TOO_LARGE, Response};
use crate::sandbox::{betrays, denied_call};

/// Publishes the completion of a call whose entry returned `outcome`, and returns it. `message` is the text that its module left, `told` why safe points end it, where they do.
#[inline]
pub fn returned(
    lane: &mut Lane,
    submission: &Submission,
    response: &Response,
    outcome: u32,
    [message, told]: [&str; 2],
    cpu_ns: u64,
) -> Completion {
    let status = match outcome {
        _ if response.told_to_end => {
            return refuse(lane, submission, Status::Timeout, told, cpu_ns);
        }
        OUTCOME_OK => Status::Ok,
        OUTCOME_ERROR => Status::Error,
        _ => return refuse(lane, submission, Status::Panic, message, cpu_ns),
    };
    let call = &response.call;
    match message_len(call.out_body_len, call.out_meta_len) {
        Some(len) if len <= call.out_capacity => {
            if lane.copies {
                hand_over(lane, submission, response, len);
            }
        }
        _ => {
            let text = "the module gave a response longer than its buffer";
            return refuse(lane, submission, Status::Fault, text, cpu_ns);
        }
    }
    // Both lengths were just checked against a buffer of less than 4 GiB.
    let len = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    publish(
        lane,
        Completion {
            slot: submission.slot,
            generation: submission.generation,
            status,
            body_len: len(call.out_body_len),
            meta_len: len(call.out_meta_len),
            overflow: response.overflowed,
            is_unsafe: false,
            cpu_ns,
        },
    )
}

#[inline]
fn publish(lane: &mut Lane, completion: Completion) -> Completion {
    lane.complete(&completion);
    completion
}

/// Copies a response that is complete from the worker's own memory to where its host looks.
#[cold]
fn hand_over(lane: &Lane, submission: &Submission, response: &Response, len: usize) {
    let (buffer, _) = match response.overflowed {
        true => lane.end.overflow_response(submission.slot),
        false => lane.end.small_response(submission.slot),
    };
    // SAFETY: a private buffer has the capacity of the slot's buffer that it stands for, and the response was found to be within it.
    unsafe { buffer.as_ptr().copy_from_nonoverlapping(response.call.out, len) };
}

/// Publishes the completion of a call that was ended from below or by a fault, and returns it.
#[cold]
pub fn ended(
    lane: &mut Lane,
    submission: &Submission,
    ending: Ending,
    arena_bytes: u64,
    cpu_ns: u64,
) -> Completion {
    let mut text = Text::default();
    // Writing to a `Text` cannot fail.
    let (status, _) = match ending {
        Ending::HostCall(LEFT_OOM) => {
            (Status::Oom, write!(text, "out of memory: a call may use {arena_bytes} bytes of heap"))
        }
        Ending::HostCall(LEFT_TOO_LARGE) => {
            (Status::TooLarge, write!(text, "response over {} bytes", lane.end.geometry().response_bytes))
        }
        Ending::HostCall(code) => (Status::Fault, write!(text, "ended by host call {code}")),
        Ending::Fault(Fault::SystemCall) => {
            (Status::Denied, write!(text, "forbidden system call {} (SIGSYS)", denied_call().name()))
        }
        Ending::Fault(fault) => (Status::Fault, text.write_str(fault.describe())),
    };
    let is_unsafe = matches!(ending, Ending::Fault(fault) if betrays(fault));
    tell(lane, submission, status, text.as_str(), cpu_ns, is_unsafe)
}

/// Publishes a completion with a text in place of a response, cut to the small buffer, and returns it.
pub fn refuse(
    lane: &mut Lane,
    submission: &Submission,
    status: Status,
    text: &str,
    cpu_ns: u64,
) -> Completion {
    tell(lane, submission, status, text, cpu_ns, false)
}

fn tell(
    lane: &mut Lane,
    submission: &Submission,
    status: Status,
    text: &str,
    cpu_ns: u64,
    is_unsafe: bool,
) -> Completion {
    let (buffer, capacity) = lane.end.small_response(submission.slot);
    let len = text.floor_char_boundary(capacity);
    // SAFETY: the slot is the worker's until the completion, and the buffer has that many bytes.
    unsafe { buffer.as_ptr().copy_from_nonoverlapping(text.as_ptr(), len) };
    publish(
        lane,
        Completion {
            slot: submission.slot,
            generation: submission.generation,
            status,
            // At most the small buffer, of less than 4 GiB.
            body_len: u32::try_from(len).unwrap_or(0),
            meta_len: 0,
            overflow: false,
            is_unsafe,
            cpu_ns,
        },
    )
}

/// A short text without allocation; what does not fit is cut.
struct Text {
    bytes: [u8; 160],
    len: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; 160], len: 0 }
    }
}

impl Text {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or("")
    }
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let len = text.floor_char_boundary(self.bytes.len() - self.len);
        self.bytes[self.len..self.len + len].copy_from_slice(&text.as_bytes()[..len]);
        self.len += len;
        Ok(())
    }
}
