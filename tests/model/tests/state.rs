//! The call state: of starting and taking back exactly one wins, and only for the call that is meant.
#![cfg(loom)]

use std::sync::Arc;

use loom::thread;
use microfaas_lane::state::{CallState, Phase, Start};
use microfaas_model::model;

#[test]
fn one_of_start_and_take_back_wins() {
    model(|| {
        let state = Arc::new(CallState::default());
        state.prepare(1);
        let worker = thread::spawn({
            let state = Arc::clone(&state);
            move || state.start(1) == Start::Yours
        });
        let taken_back = state.take_back(1);
        let started = worker.join().unwrap();
        assert!(started != taken_back, "started: {started}, taken back: {taken_back}");
        let phase = if started { Phase::Started } else { Phase::Cancelled };
        assert_eq!(state.phase(1), Some(phase));
    });
}

#[test]
fn two_take_backs_have_one_winner() {
    model(|| {
        let state = Arc::new(CallState::default());
        state.prepare(1);
        let other = thread::spawn({
            let state = Arc::clone(&state);
            move || state.take_back(1)
        });
        let here = state.take_back(1);
        assert!(here != other.join().unwrap());
        assert_eq!(state.start(1), Start::TakenBack);
    });
}

#[test]
fn a_late_take_back_misses_the_next_call() {
    model(|| {
        let state = Arc::new(CallState::default());
        state.prepare(1);
        assert_eq!(state.start(1), Start::Yours);
        state.finish(1);
        let late = thread::spawn({
            let state = Arc::clone(&state);
            move || state.take_back(1)
        });
        assert_eq!(state.start(2), Start::Yours);
        assert!(!late.join().unwrap());
        assert_eq!(state.phase(2), Some(Phase::Started));
    });
}
