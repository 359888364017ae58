//! Much of the same at one moment.

use std::time::Duration;

use microfaas_node::{Call, CallError, Request, Status};

use crate::experiments::hosts::stage_with_socket;
use crate::role::connect;
use crate::stage::{HEAL, Stage};
use crate::trial::{Stop, Trial};

/// Until when calls end that never would.
const DUE: Duration = Duration::from_millis(100);
/// Hosts that attach at the same time.
const HOSTS: usize = 4;

/// As many calls as there is room for, when the slots of those before are free.
fn fill(stage: &Stage, trial: &mut Trial, function: &str, deadline: Duration) -> Vec<Call> {
    let has_room = stage.is_idle(HEAL);
    trial.expect(has_room, || "calls that are over have slots".to_owned());
    let mut calls = Vec::new();
    let refused = loop {
        match stage.node.submit(function, Request::new(b"").deadline(deadline)) {
            Ok(call) => calls.push(call),
            Err(error) => break error,
        }
    };
    stage.aside.refuse();
    let is_full = !calls.is_empty() && matches!(refused, CallError::Overloaded { .. });
    trial
        .expect(is_full, || format!("after {} calls of {function} there is no more: {refused}", calls.len()));
    calls
}

/// X01. All calls that there can be are due at the same moment; then all are taken back at the same moment, those that run and those that do not. Each ends in one of the ways
/// that it may, no worker is to blame, and all slots are free again.
pub(super) fn ends(trial: &mut Trial) -> Result<(), Stop> {
    let stage = Stage::start(trial)?;
    let mut rounds = 0;
    while rounds == 0 || !trial.is_over(0.6) {
        trial.event();
        for call in fill(&stage, trial, "spin", DUE) {
            let answer = call.wait();
            stage.aside.enter(&answer);
            trial.expect(matches!(answer.status, Status::Timeout | Status::Expired), || {
                format!("an endless call ended {}: {}", answer.status, answer.detail)
            });
        }
        // Nobody ends a call that has started but its worker, when it is due or has spent its budget.
        for (function, deadline) in [("answer", HEAL), ("spin", DUE)] {
            let calls = fill(&stage, trial, function, deadline);
            std::thread::sleep(trial.some_time(Duration::from_millis(5)));
            for call in calls {
                let _ = call.cancel();
                stage.aside.hang_up();
            }
        }
        rounds += 1;
    }
    trial.figure("rounds", f64::from(rounds));
    stage.finish(Vec::new(), trial);
    Ok(())
}

/// X02. Hosts come, make a call and go, several at a time: nobody else notices, and nothing of them is left.
pub(super) fn hosts_come_and_go(trial: &mut Trial) -> Result<(), Stop> {
    let (stage, socket, _folder) = stage_with_socket(trial)?;
    let running = stage.load(&crate::load::Load::default(), trial);
    let is_over = || trial.is_over(0.5);
    let come_and_go = || {
        let mut visits = 0u32;
        while visits == 0 || !is_over() {
            let host = connect(&socket)?;
            let answer = host.call("answer", Request::new(b"").deadline(HEAL));
            if answer.status != Status::Error {
                return Err(Stop::Failed(format!("a host that has just attached is answered {answer:?}")));
            }
            visits += 1;
        }
        Ok(visits)
    };
    let visits = std::thread::scope(|scope| {
        let hosts: Vec<_> = (0..HOSTS).map(|_| scope.spawn(come_and_go)).collect();
        let visits = hosts
            .into_iter()
            .map(|host| host.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        visits.sum::<Result<u32, Stop>>()
    })?;
    trial.figure("visits", f64::from(visits));
    (0..visits).for_each(|_| trial.event());
    stage.finish(vec![running], trial);
    Ok(())
}
