use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;

const SLOTS: u32 = 8;
const CONTEXTS: usize = 3;

fn call(function: u32, slot: u32) -> Submission {
    Submission {
        slot,
        generation: 1,
        function,
        flags: 0,
        body_len: 0,
        meta_len: 0,
        deadline_ns: u64::MAX,
        submitted_cycles: 0,
    }
}

fn backlog(lanes: usize) -> Backlog {
    let mut backlog = Backlog::default();
    (0..lanes).for_each(|lane| backlog.add_lane(lane, SLOTS, CONTEXTS));
    backlog
}

/// Starts the next call, which uses so much: its lane, function and slot.
fn start(backlog: &mut Backlog, used: u64) -> (usize, u32, u32) {
    let turn = backlog.turn().expect("somebody wants the core");
    let submission = backlog.pop(turn).expect("it has a call");
    assert_eq!(backlog.function(turn), submission.function);
    backlog.used(turn, used);
    (turn.lane, submission.function, submission.slot)
}

#[test]
fn one_function_is_served_in_the_order_of_submission() {
    let mut backlog = backlog(1);
    (0..SLOTS).for_each(|slot| backlog.push(0, &call(5, slot)).unwrap());
    assert_eq!(backlog.push(0, &call(5, 0)), Err(Full));
    assert_eq!(backlog.push(0, &call(6, 0)), Err(Full));
    assert_eq!(backlog.want(), Want::One(0, 5));
    let order: Vec<_> = (0..SLOTS).map(|_| start(&mut backlog, 100).2).collect();
    assert!(order.into_iter().eq(0..SLOTS));
    assert_eq!((backlog.want(), backlog.is_idle()), (Want::Nobody, true));
}

#[test]
fn a_flooded_function_lets_another_pass() {
    let mut backlog = backlog(1);
    (0..6).for_each(|slot| backlog.push(0, &call(1, slot)).unwrap());
    assert_eq!(start(&mut backlog, 1000), (0, 1, 0));
    backlog.push(0, &call(2, 6)).unwrap();
    backlog.push(0, &call(2, 7)).unwrap();
    assert_eq!(backlog.want(), Want::Several);
    // Ten calls of it are as long as one of the other's: both of these come before the next of those.
    assert_eq!([start(&mut backlog, 100).1, start(&mut backlog, 100).1], [2, 2]);
    assert_eq!(start(&mut backlog, 1000), (0, 1, 1));
}

#[test]
fn a_host_gains_nothing_by_many_functions() {
    let mut backlog = backlog(2);
    let mut served = [0u32; 2];
    let mut function = 100;
    for _ in 0..1000 {
        while backlog.push(0, &call(function, 0)).is_ok() {
            function += 1;
        }
        let _ = backlog.push(1, &call(1, 0));
        served[start(&mut backlog, 10).0] += 1;
    }
    assert!(served[0].abs_diff(served[1]) <= 1, "{served:?}");
}

#[test]
fn a_host_whose_function_numbers_have_one_bucket_is_served() {
    let mut backlog = backlog(1);
    for round in 0..100 {
        (0..SLOTS).for_each(|slot| backlog.push(0, &call((round * SLOTS + slot) << 20, slot)).unwrap());
        let order: Vec<_> = (0..SLOTS).map(|_| start(&mut backlog, 1).2).collect();
        assert!(order.into_iter().eq(0..SLOTS), "first come, first served");
    }
}

#[test]
fn what_is_parked_waits_for_its_release_in_its_order() {
    let mut backlog = backlog(2);
    (0..3).for_each(|slot| backlog.push(0, &call(1, slot)).unwrap());
    let turn = backlog.turn().unwrap();
    backlog.park(turn);
    assert!(backlog.is_idle() && backlog.has_parked() && backlog.has_calls_of(1));
    backlog.push(0, &call(1, 3)).unwrap();
    assert!(backlog.is_idle(), "it is still parked");
    backlog.push(1, &call(1, 0)).unwrap();
    assert_eq!(start(&mut backlog, 1), (1, 1, 0), "by another lane it is another's");
    backlog.release();
    assert!(!backlog.has_parked());
    let order: Vec<_> = (0..4).map(|_| start(&mut backlog, 1).2).collect();
    assert_eq!(order, [0, 1, 2, 3]);
    assert!(!backlog.has_calls_of(1));
}

#[test]
fn suspended_calls_want_the_core_as_others_do() {
    let mut backlog = backlog(1);
    backlog.push(0, &call(1, 0)).unwrap();
    let turn = backlog.turn().unwrap();
    backlog.pop(turn).unwrap();
    backlog.call_suspended(0, 1);
    backlog.used(turn, 100);
    assert_eq!((backlog.want(), backlog.suspended(turn)), (Want::One(0, 1), 1));
    backlog.push(0, &call(2, 1)).unwrap();
    assert_eq!(start(&mut backlog, 10), (0, 2, 1));
    let turn = backlog.turn().unwrap();
    assert_eq!((backlog.function(turn), backlog.first_call(turn)), (1, None));
    backlog.resumes(turn);
    backlog.call_over(turn);
    backlog.used(turn, 100);
    assert!(backlog.is_idle());
}

#[test]
fn a_lane_goes_with_all_that_is_its_own() {
    let mut backlog = backlog(3);
    for lane in 0..3 {
        backlog.push(lane, &call(1, 0)).unwrap();
        backlog.push(lane, &call(2, 1)).unwrap();
    }
    let turn = backlog.turn().unwrap();
    backlog.park(turn);
    backlog.remove_lane(turn.lane);
    backlog.remove_lane(1);
    assert!(!backlog.has_parked());
    assert_eq!([start(&mut backlog, 1), start(&mut backlog, 1)], [(2, 1, 0), (2, 2, 1)]);
    assert!(backlog.is_idle());
    backlog.add_lane(1, SLOTS, CONTEXTS);
    assert!(!backlog.has_calls_of(1), "nothing is left of the lane before");
}

#[derive(Debug, Clone)]
enum Step {
    Push { lane: usize, function: u32 },
    Start { used: u64, suspended: bool },
    Resume { used: u64, over: bool },
    Park,
    Release,
    TakeOut(u32),
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3usize, 0..20u32).prop_map(|(lane, function)| Step::Push { lane, function }),
        6 => (1..50u64, any::<bool>()).prop_map(|(used, suspended)| Step::Start { used, suspended }),
        3 => (1..50u64, any::<bool>()).prop_map(|(used, over)| Step::Resume { used, over }),
        1 => Just(Step::Park),
        1 => Just(Step::Release),
        1 => (0..20u32).prop_map(Step::TakeOut),
        1 => (0..3usize).prop_map(Step::Remove),
    ]
}

/// What the backlog should hold.
#[derive(Default)]
struct Model {
    calls: BTreeMap<(usize, u32), VecDeque<u32>>,
    suspended: BTreeMap<(usize, u32), usize>,
    parked: std::collections::BTreeSet<(usize, u32)>,
    next_slot: u32,
}

impl Model {
    fn waiting(&self, lane: usize) -> usize {
        self.calls.iter().filter(|((of, _), _)| *of == lane).map(|(_, calls)| calls.len()).sum()
    }

    fn suspended_in_all(&self) -> usize {
        self.suspended.values().sum()
    }

    fn wanting(&self) -> Vec<(usize, u32)> {
        let has_calls = self.calls.iter().filter(|(_, calls)| !calls.is_empty()).map(|(key, _)| *key);
        let has_suspended = self.suspended.iter().filter(|(_, count)| **count > 0).map(|(key, _)| *key);
        let all: std::collections::BTreeSet<_> = has_calls.chain(has_suspended).collect();
        all.into_iter().filter(|key| !self.parked.contains(key)).collect()
    }
}

proptest! {
    /// Whatever happens, each call comes out once, in the order of its function, and who has something to do has its turn.
    #[test]
    fn every_call_comes_out_once_and_in_order(steps in prop::collection::vec(step(), 1..600)) {
        let (mut backlog, mut model) = (backlog(3), Model::default());
        for step in steps {
            match step {
                Step::Push { lane, function } => {
                    let slot = model.next_slot;
                    model.next_slot += 1;
                    let is_full = model.waiting(lane) == SLOTS as usize;
                    prop_assert_eq!(backlog.push(lane, &call(function, slot)).is_err(), is_full);
                    if !is_full {
                        model.calls.entry((lane, function)).or_default().push_back(slot);
                    }
                }
                Step::Start { used, suspended } => {
                    let Some(turn) = backlog.turn() else { continue };
                    let key = (turn.lane, backlog.function(turn));
                    let popped = backlog.pop(turn).map(|call| call.slot);
                    prop_assert_eq!(popped, model.calls.get_mut(&key).and_then(VecDeque::pop_front));
                    if popped.is_some() && suspended && model.suspended_in_all() < CONTEXTS {
                        backlog.call_suspended(key.0, key.1);
                        *model.suspended.entry(key).or_default() += 1;
                    }
                    backlog.used(turn, used);
                }
                Step::Resume { used, over } => {
                    let Some(turn) = backlog.turn() else { continue };
                    let key = (turn.lane, backlog.function(turn));
                    let suspended = model.suspended.entry(key).or_default();
                    prop_assert_eq!(backlog.suspended(turn), *suspended);
                    if *suspended > 0 && over {
                        backlog.call_over(turn);
                        *suspended -= 1;
                    }
                    backlog.resumes(turn);
                    backlog.used(turn, used);
                }
                Step::Park => {
                    let Some(turn) = backlog.turn() else { continue };
                    if backlog.suspended(turn) == 0 && backlog.first_call(turn).is_some() {
                        model.parked.insert((turn.lane, backlog.function(turn)));
                        backlog.park(turn);
                    }
                }
                Step::Release => {
                    backlog.release();
                    model.parked.clear();
                }
                Step::TakeOut(function) => {
                    let taken = backlog.take_out(|_, of| of == function).map(|(lane, call)| (lane, call.slot));
                    let Some((lane, slot)) = taken else {
                        prop_assert!(!backlog.has_calls_of(function));
                        continue;
                    };
                    let calls = model.calls.get_mut(&(lane, function));
                    prop_assert_eq!(calls.and_then(VecDeque::pop_front), Some(slot));
                    if model.calls[&(lane, function)].is_empty() {
                        model.parked.remove(&(lane, function));
                    }
                }
                Step::Remove(lane) => {
                    backlog.remove_lane(lane);
                    backlog.add_lane(lane, SLOTS, CONTEXTS);
                    model.calls.retain(|(of, _), _| *of != lane);
                    model.suspended.retain(|(of, _), _| *of != lane);
                    model.parked.retain(|(of, _)| *of != lane);
                }
            }
            let wanting = model.wanting();
            let expected = match wanting[..] {
                [] => Want::Nobody,
                [(lane, function)] => Want::One(lane, function),
                _ => Want::Several,
            };
            prop_assert_eq!(backlog.want(), expected);
            prop_assert_eq!(backlog.has_parked(), !model.parked.is_empty());
            if let Some(turn) = backlog.turn() {
                prop_assert!(wanting.contains(&(turn.lane, backlog.function(turn))));
            }
        }
    }
}
