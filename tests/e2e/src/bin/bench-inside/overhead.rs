//! What the way into a call and out of it costs: the same function, entered by the worker's scheduler and entered bare.
//!
//! Both claim the call from the lane, hand it the request and the response's buffer, and publish its completion. The scheduler has beside that: a context of its
//! own, the limit and the clock, the switch onto the call's stack and back, the choice of arena and response for host calls, the reset of the
//! module's writable state, and of the arena.
#![expect(unsafe_code, reason = "enters a function without the worker")]

use std::ffi::c_void;
use std::path::Path;
use std::time::{Duration, Instant};

use microfaas_control::Limits;
use microfaas_e2e::inside::Inside;
use microfaas_lane::Status;
use microfaas_lane::worker::Submission;
use microfaas_sys::clock::cycles;
use microfaas_worker::execute::returned;
use microfaas_worker::host_calls::Response;

use super::Figure;

/// Calls between two readings of the clock: so few that seldom an interruption comes between, so many that reading it does not show.
const BATCH: u32 = 64;

pub(super) fn measure(inside: &mut Inside, probe: &Path, time: Duration) -> Figure {
    let echo = inside.load(probe, &[("echo", Limits::default())]).expect("the probe is a module");
    let clock = inside.clock();
    let mut response = Box::new(Response::default());
    let mut figure = Figure::default();
    let end = Instant::now() + time;
    let mut number = 0u64;
    while Instant::now() < end {
        // First one, then the other, so that a change of the machine's speed hits both alike.
        let scheduled = batch(inside, echo, &mut number, |inside, submission| inside.start(submission));
        inside.choose(&mut response);
        let bare = batch(inside, echo, &mut number, |inside, submission| {
            enter_bare(inside, submission, &mut response);
        });
        let ns = |cycles: u64| clock.to_ns(cycles) as f64 / f64::from(BATCH);
        figure.add(ns(scheduled) - ns(bare));
    }
    figure
}

/// Cycles that a batch takes. All answers are checked, and no two are the same.
fn batch(
    inside: &mut Inside,
    echo: u32,
    number: &mut u64,
    mut run: impl FnMut(&mut Inside, &Submission),
) -> u64 {
    let bodies: Vec<_> = (*number..).take(BATCH as usize).map(|i| i.to_le_bytes().repeat(8)).collect();
    *number += u64::from(BATCH);
    let tickets: Vec<_> = bodies.iter().map(|body| inside.submit(echo, body)).collect();
    let start = cycles();
    for _ in 0..BATCH {
        let submission = inside.claim().expect("it was submitted");
        run(inside, &submission);
    }
    // One that was held up by the machine for a whole slice was suspended.
    while inside.resume() {}
    let spent = cycles().wrapping_sub(start);
    let mut left = tickets.len();
    while let Some(ended) = inside.take() {
        let call = tickets.iter().position(|ticket| *ticket == ended.ticket).expect("a call of this batch");
        assert_eq!((ended.status, &ended.body), (Status::Ok, &bodies[call]), "a wrong answer");
        left -= 1;
    }
    assert_eq!(left, 0, "calls without a completion");
    spent
}

/// As the worker does it, without what protects it.
#[inline]
fn enter_bare(inside: &mut Inside, submission: &Submission, response: &mut Response) {
    let (lane, function) = inside.parts(submission.function);
    // SAFETY: claimed from this lane and not completed; the slices are used up before the completion.
    let (body, meta) = unsafe { lane.end.request(submission) };
    let (out, out_capacity) = lane.end.small_response(submission.slot);
    response.overflow = lane.end.overflow_response(submission.slot);
    let call = &mut response.call;
    (call.body, call.body_len, call.meta, call.meta_len) =
        (body.as_ptr(), body.len(), meta.as_ptr(), meta.len());
    (call.out, call.out_capacity, call.deadline_ns) = (out.as_ptr(), out_capacity, submission.deadline_ns);
    (call.out_body_len, call.out_meta_len) = (0, 0);
    let argument = (&raw mut response.call).cast::<c_void>();
    // SAFETY: the entry of a loaded module, with a call as it expects it; `echo` fits its answer into the buffer, allocates nothing, and leaves nothing behind.
    let outcome = unsafe { (function.entry)(argument) };
    returned(lane, submission, response, outcome, ["", ""], 0);
}
