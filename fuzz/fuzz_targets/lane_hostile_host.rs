//! A worker against a host that is not trusted, and writes whatever it likes into any region between any two steps.
//!
//! The worker never panics, reads and writes nothing outside (address sanitizer), pops no submission that does not fit its slot, and ends in every loop.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use microfaas_fuzz::{GEOMETRY, HeapMemory};
use microfaas_lane::Status;
use microfaas_lane::host::HostLane;
use microfaas_lane::layout::{LINE, RING, Region};
use microfaas_lane::message::message_len;
use microfaas_lane::worker::{Completion, Submission, WorkerLane};

#[derive(Debug, Arbitrary)]
enum Step {
    Scribble {
        region: u8,
        offset: u32,
        byte: u8,
    },
    /// A submission of arbitrary words, mostly where the worker looks and under the tag that it waits for.
    Forge {
        ahead: u8,
        tag: i8,
        slot: u8,
        words: [u64; 2],
        lengths: (u16, u16),
    },
    Look {
        function: u32,
        from: u64,
    },
    Pop,
    /// The call that has waited longest is over.
    Complete {
        body: u32,
        overflow: bool,
    },
}

#[derive(Debug, Arbitrary)]
struct Input {
    steps: Vec<Step>,
}

fn region(number: u8) -> Region {
    [Region::Down, Region::Bulk, Region::Up][usize::from(number % 3)]
}

fn word(memory: &HeapMemory, offset: usize, word: u64) {
    for (i, byte) in (0..).zip(word.to_le_bytes()) {
        memory.scribble_in(Region::Down, offset + i, byte);
    }
}

/// Takes a call's request, and writes both of its buffers whole.
fn work(worker: &WorkerLane, call: &Submission) {
    let len = message_len(call.body_len as usize, call.meta_len as usize);
    assert!(call.slot < GEOMETRY.slots() && len == Some(worker.request_len(call)));
    assert!(worker.request_len(call) <= GEOMETRY.request_capacity(call.slot));
    let mut request = vec![0_u8; worker.request_len(call).max(1)];
    let to = std::ptr::NonNull::from(&mut request[..]).cast();
    // SAFETY: just popped; the vector has room for it.
    unsafe { worker.copy_request(call, to) };
    let _ = worker.start(call);
    for (start, bytes) in [worker.small_response(call.slot), worker.overflow_response(call.slot)] {
        // SAFETY: the worker's buffer, of as many bytes; nobody refers to it.
        unsafe { start.write_bytes(0x5a, bytes) };
    }
}

fuzz_target!(|input: Input| {
    let (host, _reader) = HostLane::new(HeapMemory::new());
    let memory = host.memory();
    // SAFETY: the memory outlives the end, and this is the only one.
    let mut worker = unsafe { WorkerLane::new(memory.bases(), GEOMETRY) };
    let entries = u64::from(GEOMETRY.ring_entries());
    let mut open: Vec<Submission> = Vec::new();
    for step in &input.steps {
        match *step {
            Step::Scribble { region: number, offset, byte } => {
                memory.scribble_in(region(number), offset as usize, byte);
            }
            Step::Forge { ahead, tag, slot, words, lengths: (body, meta) } => {
                let position = worker.position() + u64::from(ahead % 8);
                let tag = (position / entries + 1).wrapping_add_signed(i64::from(tag)) & 0xffff_ffff;
                let start = RING + usize::try_from(position % entries).expect("a line") * LINE;
                word(memory, start + 8, words[0]);
                word(memory, start + 16, u64::from(body) << 32 | u64::from(meta));
                word(memory, start + 24, words[1]);
                word(memory, start, tag << 32 | u64::from(slot));
            }
            Step::Look { function, from } => {
                let _ = (worker.is_ready(), worker.prefetch_next(), worker.next_function());
                let (until, _) = worker.run_of(function, from);
                assert!(until <= worker.all_submitted());
            }
            Step::Pop => {
                let before = worker.position();
                match worker.pop() {
                    Ok(None) => assert_eq!(worker.position(), before),
                    Ok(Some(call)) => {
                        assert_eq!(worker.position(), before + 1);
                        work(&worker, &call);
                        open.push(call);
                    }
                    // The lane is cut.
                    Err(_) => return,
                }
            }
            Step::Complete { body, overflow } => {
                if open.is_empty() {
                    continue;
                }
                let call = open.remove(0);
                worker.complete(&Completion {
                    slot: call.slot,
                    generation: call.generation,
                    status: Status::Ok,
                    body_len: body,
                    meta_len: 0,
                    overflow,
                    is_unsafe: false,
                    cpu_ns: 1,
                });
                let _ = worker.host_sleeps();
            }
        }
    }
});
