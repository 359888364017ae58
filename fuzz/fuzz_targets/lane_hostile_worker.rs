//! A host against a worker whose region is full of arbitrary bytes and who writes whatever it likes between any two steps.
//!
//! The host never panics, reads nothing outside (address sanitizer), gives each call at most one outcome, believes no length over the buffer,
//! and has every slot back once everything is settled.
#![no_main]

use std::collections::HashMap;
use std::mem::MaybeUninit;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use microfaas_fuzz::{GEOMETRY, HeapMemory};
use microfaas_lane::host::{CPU_NS_MAX, HostLane, Request, Ticket};
use microfaas_lane::layout::{LINE, RING};
use microfaas_lane::message::{Pairs, message_len};
use microfaas_lane::worker::{Completion, WorkerLane};
use microfaas_lane::{Status, Violation};

#[derive(Debug, Arbitrary)]
enum Step {
    Submit {
        body: u16,
        meta: u8,
    },
    Poll,
    Take(u8),
    Abandon(u8),
    TakeBack(u8),
    Scribble {
        offset: u32,
        word: u64,
    },
    /// A completion of arbitrary words under an arbitrary tag, in a line of the ring.
    Forge {
        line: u8,
        tag: u8,
        words: [u64; 3],
        flags: u8,
    },
    /// As an honest worker.
    Work {
        status: u8,
        body: u16,
        meta: u8,
        overflow: bool,
    },
    SettleAll,
}

#[derive(Debug, Arbitrary)]
struct Input {
    region: Vec<u8>,
    at: u32,
    steps: Vec<Step>,
}

/// The host's program: what it was promised.
struct Host {
    lane: HostLane<HeapMemory>,
    open: Vec<Ticket>,
    settled: HashMap<Ticket, bool>,
}

impl Host {
    fn pick(&self, which: u8) -> Option<usize> {
        (!self.open.is_empty()).then(|| usize::from(which) % self.open.len())
    }

    /// The outcome of a call, with all that a host does with it.
    fn take(&mut self, index: usize) {
        let ticket = self.open[index];
        let Some(outcome) = self.lane.outcome(ticket) else { return };
        let len = message_len(outcome.body_len as usize, outcome.meta_len as usize).expect("checked by poll");
        let capacity = if outcome.overflow {
            GEOMETRY.response_bytes as usize
        } else {
            GEOMETRY.small_response_capacity()
        };
        assert!(len <= capacity && outcome.cpu_ns <= CPU_NS_MAX && outcome.status != Status::Overloaded);
        let mut bytes = vec![MaybeUninit::uninit(); len];
        self.lane.copy_response(ticket, &outcome, 0, &mut bytes);
        let bytes: Vec<u8> = bytes
            .into_iter()
            // SAFETY: `copy_response` has written all of them.
            .map(|byte| unsafe { byte.assume_init() })
            .collect();
        let _ = Pairs::parse(&bytes[len - outcome.meta_len as usize..]);
        self.lane.release(ticket);
        self.lane.release(ticket);
        assert_eq!(self.lane.outcome(ticket), None);
        assert!(self.open.swap_remove(index) == ticket);
    }

    fn settle(&mut self, ticket: Ticket) {
        assert_eq!(self.settled.insert(ticket, true), Some(false), "settled twice, or never submitted");
    }
}

fuzz_target!(|input: Input| {
    let (lane, mut reader) = HostLane::new(HeapMemory::new());
    // SAFETY: the memory outlives the end below, and this is the only one.
    let mut worker = unsafe { WorkerLane::new(lane.memory().bases(), GEOMETRY) };
    let mut host = Host { lane, open: Vec::new(), settled: HashMap::new() };
    for (i, byte) in (0..).zip(&input.region) {
        host.lane.memory().scribble(input.at as usize + i, *byte);
    }
    let mut cut = false;
    for step in &input.steps {
        match *step {
            Step::Submit { body, meta } if !cut => {
                let (body, meta) = (usize::from(body % 5000), usize::from(meta));
                let Some(len) = message_len(body, meta) else { continue };
                let Ok(mut reserved) = host.lane.reserve(len) else { continue };
                host.lane.buffer(&mut reserved)[..len].fill(0xa5);
                let request = Request {
                    function: 1,
                    body_len: body as u32,
                    meta_len: meta as u32,
                    deadline_ns: u64::MAX,
                    flags: 0,
                    submitted_cycles: 0,
                };
                let ticket = host.lane.submit(reserved, &request);
                let _ = host.lane.worker_wish();
                assert_eq!(host.settled.insert(ticket, false), None, "a ticket came twice");
                host.open.push(ticket);
            }
            Step::Poll if !cut => match host.lane.poll(&mut reader) {
                Ok(None) => {}
                Ok(Some(completed)) => {
                    assert_eq!(completed.abandoned, !host.open.contains(&completed.ticket));
                    host.settle(completed.ticket);
                }
                Err(Violation::Tag { found, expected }) => {
                    assert!(found != expected);
                    cut = true;
                }
                Err(_) => cut = true,
            },
            Step::Take(which) => {
                if let Some(index) = host.pick(which) {
                    host.take(index);
                }
            }
            Step::Abandon(which) => {
                if let Some(index) = host.pick(which) {
                    let ticket = host.open.swap_remove(index);
                    host.lane.abandon(ticket);
                    assert_eq!(host.lane.outcome(ticket), None);
                }
            }
            Step::TakeBack(which) => {
                if let Some(index) = host.pick(which) {
                    let _ = host.lane.take_back(host.open[index]);
                    let _ = host.lane.phase(host.open[index]);
                }
            }
            Step::Scribble { offset, word } => host.lane.memory().scribble_word(offset as usize, word),
            Step::Forge { line, tag, words, flags } => {
                let start = RING + usize::from(line % 8) * LINE;
                let slot = words[0] & 0xffff_ffff;
                for (i, word) in (0..).zip([u64::from(tag) << 32 | slot, words[1], words[2], 0, flags.into()])
                {
                    host.lane.memory().scribble_word(start + i * 8, word);
                }
            }
            Step::Work { status, body, meta, overflow } => {
                if let Ok(Some(submission)) = worker.pop() {
                    let _ = worker.start(&submission);
                    // SAFETY: just popped and not completed.
                    let (bytes, _) = unsafe { worker.request(&submission) };
                    assert!(bytes.iter().all(|byte| *byte == 0xa5));
                    worker.complete(&Completion {
                        slot: submission.slot,
                        generation: submission.generation,
                        status: Status::from_number(u32::from(status)).unwrap_or(Status::Ok),
                        body_len: body.into(),
                        meta_len: meta.into(),
                        overflow,
                        is_unsafe: body % 5 == 0,
                        cpu_ns: 1,
                    });
                    let _ = worker.host_sleeps();
                }
            }
            Step::SettleAll => cut = true,
            Step::Submit { .. } | Step::Poll => {}
        }
    }
    let mut lost = Vec::new();
    host.lane.settle_all(&mut reader, |completed| lost.push(completed.ticket));
    lost.into_iter().for_each(|ticket| host.settle(ticket));
    assert!(host.settled.values().all(|settled| *settled), "a call without an outcome");
    while !host.open.is_empty() {
        let open = host.open.len();
        host.take(0);
        assert!(host.open.len() < open, "a settled call without an outcome");
    }
    assert_eq!(host.lane.free_slots(), GEOMETRY.slots(), "a slot was lost");
});
