//! The process in which the modules of a deployment are tried out.

use std::time::Instant;

use microfaas_sys::process::Process;

use super::{Supervisor, reap};
use crate::LaunchError;
use crate::launch::{Launch, Progress, Role};
use crate::shelf::Shelf;

impl Supervisor {
    /// Looks how far the process has come in which modules are tried out.
    pub(super) fn look_at_trial(&mut self, ended: bool, spoke: bool) {
        let Some((_, launch)) = &mut self.trial else { return };
        let failure = if spoke && !launch.is_closed() {
            match launch.answer(&self.shared, &mut self.rollout) {
                Ok(Progress::Tried) => return self.rollout.tried(),
                Ok(Progress::Asked) => return,
                Ok(Progress::Up(_)) => "serves though it is not to".to_owned(),
                Err(LaunchError::Socket(_)) if ended => how(&launch.process),
                // An end that is still on its way.
                Err(LaunchError::Socket(_)) => return launch.closes(),
                Err(error) => error.to_string(),
            }
        } else if ended {
            how(&launch.process)
        } else if launch.answer_by <= Instant::now() {
            launch.silent().to_string()
        } else {
            return;
        };
        let Some((serial, launch)) = self.trial.take() else { return };
        if self.rollout.to_try() == Some(serial) {
            let reason = format!("the process that tries it out: {failure}");
            self.rollout.trial_failed(&self.shared, &launch.shelf, &reason);
        }
        self.discard(launch.process);
    }

    /// Begins to try out what is deployed, and ends what is no longer needed for that.
    pub(super) fn keep_trial(&mut self) {
        let wanted = self.rollout.to_try();
        if let Some((_, launch)) = self.trial.take_if(|(serial, _)| Some(*serial) != wanted) {
            self.discard(launch.process);
        }
        if let (None, Some(serial)) = (&self.trial, wanted) {
            match Launch::begin(&self.plan, &self.shared, Role::Trial) {
                Ok(launch) => self.trial = Some((serial, Box::new(launch))),
                Err(error) => {
                    self.rollout.trial_failed(&self.shared, &Shelf::default(), &error.to_string());
                }
            }
        }
    }
}

fn how(process: &Process) -> String {
    format!("ended with {}", reap(process))
}
