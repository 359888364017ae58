//! An honest host and worker against a plain model: a queue of what was submitted, a map of what is open.
#![no_main]

use std::collections::{HashMap, VecDeque};
use std::mem::MaybeUninit;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use microfaas_fuzz::{GEOMETRY, HeapMemory};
use microfaas_lane::Status;
use microfaas_lane::host::{HostLane, Request, ReserveError, Ticket};
use microfaas_lane::state::Start;
use microfaas_lane::worker::{Completion, WorkerLane};

#[derive(Debug, Arbitrary)]
enum Step {
    Submit { len: u16, fill: u8 },
    Work { overflow: bool },
    Poll,
    Take(u8),
    TakeBack(u8),
    Abandon(u8),
}

#[derive(Debug, Arbitrary)]
struct Input {
    /// Where the rings start; laps and tags wrap as well.
    position: u64,
    steps: Vec<Step>,
}

/// A call as its host sees it.
#[derive(Debug, Clone)]
struct Call {
    len: usize,
    fill: u8,
    taken_back: bool,
    wanted: bool,
    completed: bool,
}

fuzz_target!(|input: Input| {
    let position = input.position % (1 << 60);
    let (lane, mut reader) = HostLane::starting_at(HeapMemory::new(), position);
    // SAFETY: the memory outlives the end, and this is the only one.
    let mut worker = unsafe { WorkerLane::starting_at(lane.memory().bases(), GEOMETRY, position) };
    let mut calls: HashMap<Ticket, Call> = HashMap::new();
    let (mut submitted, mut done): (VecDeque<Ticket>, VecDeque<Ticket>) = Default::default();
    let mut open: Vec<Ticket> = Vec::new();
    for step in &input.steps {
        let pick = |which: u8| (!open.is_empty()).then(|| usize::from(which) % open.len());
        match *step {
            Step::Submit { len, fill } => {
                let len = usize::from(len % 5000);
                let mut reserved = match lane.reserve(len) {
                    Ok(reserved) => reserved,
                    Err(ReserveError::TooLarge { max }) => {
                        assert!(len > max && max == GEOMETRY.large_bytes as usize);
                        continue;
                    }
                    Err(ReserveError::Exhausted) => {
                        let large = len > GEOMETRY.small_bytes as usize;
                        let used =
                            calls.keys().filter(|ticket| GEOMETRY.is_large(ticket.slot) == large).count();
                        let all = if large { GEOMETRY.large_slots } else { GEOMETRY.small_slots };
                        assert_eq!(used, all as usize, "exhausted with slots free");
                        continue;
                    }
                };
                lane.buffer(&mut reserved)[..len].fill(fill);
                let body_len = u32::try_from(len).expect("below 5000");
                let ticket = lane.submit(
                    reserved,
                    &Request {
                        function: 7,
                        body_len,
                        meta_len: 0,
                        deadline_ns: 9,
                        flags: 1,
                        submitted_cycles: 5,
                    },
                );
                let call = Call { len, fill, taken_back: false, wanted: true, completed: false };
                assert!(calls.insert(ticket, call).is_none());
                submitted.push_back(ticket);
                open.push(ticket);
            }
            Step::Work { overflow } => {
                assert_eq!(worker.is_ready(), !submitted.is_empty());
                let _ = worker.prefetch_next();
                let found = worker.pop().expect("an honest host");
                let expected = submitted.pop_front();
                assert_eq!(found.map(|s| (s.slot, s.generation)), expected.map(|t| (t.slot, t.generation)));
                let (Some(found), Some(ticket)) = (found, expected) else { continue };
                let call = &calls[&ticket];
                assert_eq!(
                    (found.function, found.flags, found.deadline_ns, found.submitted_cycles),
                    (7, 1, 9, 5)
                );
                // SAFETY: just popped and not completed.
                let (body, meta) = unsafe { worker.request(&found) };
                assert!(body.len() == call.len && meta.is_empty() && body.iter().all(|b| *b == call.fill));
                let start = worker.start(&found);
                assert_eq!(start == Start::TakenBack, call.taken_back);
                let run = start == Start::Yours;
                let (buffer, capacity) = if overflow {
                    worker.overflow_response(found.slot)
                } else {
                    worker.small_response(found.slot)
                };
                let len = if run { call.len.min(capacity) } else { 0 };
                for i in 0..len {
                    // SAFETY: `len` is within the buffer.
                    let at = unsafe { buffer.byte_add(i) };
                    // SAFETY: the worker owns it until it completes the call.
                    unsafe { at.write(!call.fill) };
                }
                worker.complete(&Completion {
                    slot: found.slot,
                    generation: found.generation,
                    status: if run { Status::Ok } else { Status::Cancelled },
                    body_len: u32::try_from(len).expect("below 5000"),
                    meta_len: 0,
                    overflow,
                    is_unsafe: false,
                    cpu_ns: 3,
                });
                done.push_back(ticket);
            }
            Step::Poll => {
                assert_eq!(lane.is_ready(&reader), !done.is_empty());
                let found = lane.poll(&mut reader).expect("an honest worker");
                assert_eq!(found.map(|completed| completed.ticket), done.front().copied());
                let Some(ticket) = done.pop_front() else { continue };
                let call = calls.get_mut(&ticket).expect("submitted");
                call.completed = true;
                assert_eq!(found.map(|completed| completed.abandoned), Some(!call.wanted));
                if !call.wanted {
                    calls.remove(&ticket);
                }
            }
            Step::Take(which) => {
                let Some(index) = pick(which) else { continue };
                let ticket = open[index];
                let call = calls[&ticket].clone();
                let outcome = lane.outcome(ticket);
                assert_eq!(outcome.is_some(), call.completed);
                let Some(outcome) = outcome else { continue };
                assert_eq!(outcome.status == Status::Cancelled, call.taken_back);
                let mut bytes = vec![MaybeUninit::uninit(); outcome.body_len as usize];
                lane.copy_response(ticket, &outcome, 0, &mut bytes);
                // SAFETY: `copy_response` has written all of them.
                assert!(bytes.iter().all(|byte| unsafe { byte.assume_init() } == !call.fill));
                lane.release(ticket);
                calls.remove(&ticket);
                open.swap_remove(index);
            }
            Step::TakeBack(which) => {
                let Some(index) = pick(which) else { continue };
                let waits = submitted.contains(&open[index]) && !calls[&open[index]].taken_back;
                assert_eq!(lane.take_back(open[index]), waits);
                calls.get_mut(&open[index]).expect("open").taken_back |= waits;
            }
            Step::Abandon(which) => {
                let Some(index) = pick(which) else { continue };
                let ticket = open.swap_remove(index);
                let call = calls.get_mut(&ticket).expect("open");
                call.wanted = false;
                let completed = call.completed;
                assert_eq!(lane.abandon(ticket), completed);
                if completed {
                    calls.remove(&ticket);
                }
            }
        }
        let used = u32::try_from(calls.len()).expect("at most all slots");
        assert_eq!(lane.free_slots(), GEOMETRY.slots() - used);
    }
});
