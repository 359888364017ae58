//! What is to be done with a call of a function: it is started, waits, goes elsewhere or is refused.

use microfaas_lane::worker::Submission;
use microfaas_sys::clock::monotonic_ns;

use super::Modules;
use crate::function::{Function, Target};
use crate::instance::Instance;

/// Longest way from a number that is not in use any more to the one that is in its place. A worker that was told of every change knows each at one step.
const STEPS_MAX: usize = 8;

/// What is to be done with a call of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It can be started.
    Ready,
    /// It waits for a suspended one of a function that keeps its state.
    Held,
    /// It waits for its module, which is to be [wanted](Modules::want).
    Cold,
    /// It goes to the function's [successor](Modules::successor).
    Moved,
    /// The function's module was refused.
    Refused,
    /// The function is banned.
    Banned,
    /// There is no such function.
    Unknown,
}

impl Modules {
    /// What is to be done with a call.
    #[inline]
    #[must_use]
    pub fn standing(&self, function: u32) -> Standing {
        match self.targets.get(function as usize) {
            Some(Target::Loaded(function)) if !function.stateful => Standing::Ready,
            Some(Target::Loaded(function)) => self.standing_of_stateful(function),
            Some(Target::Moved(_)) => Standing::Moved,
            Some(Target::Refused) => Standing::Refused,
            Some(Target::Cold(_)) if self.is_banned(function) => Standing::Banned,
            Some(Target::Cold(module)) => self.standing_of_cold(*module),
            Some(Target::Banned(_)) => Standing::Banned,
            Some(Target::None) | None => Standing::Unknown,
        }
    }

    /// As [`standing`](Self::standing), of a function whose ban does not count.
    #[cold]
    #[must_use]
    pub fn standing_unbanned(&self, function: u32) -> Standing {
        match self.targets.get(function as usize) {
            Some(Target::Cold(module)) => self.standing_of_cold(*module),
            target => match target.and_then(Target::loaded) {
                Some(function) if function.stateful => self.standing_of_stateful(function),
                Some(_) => Standing::Ready,
                None => Standing::Unknown,
            },
        }
    }

    #[cold]
    fn standing_of_cold(&self, module: u32) -> Standing {
        if self.wants.rests(module, monotonic_ns) { Standing::Refused } else { Standing::Cold }
    }

    #[cold]
    pub(super) fn is_banned(&self, function: u32) -> bool {
        self.banned.binary_search(&function).is_ok()
    }

    fn standing_of_stateful(&self, function: &Function) -> Standing {
        let instance = self.instances.get(function.instance as usize).and_then(Option::as_ref);
        if instance.is_some_and(Instance::is_held) { Standing::Held } else { Standing::Ready }
    }

    /// Bans these functions, whose numbers are in order, and no others. Those of cold modules are banned too.
    pub fn ban(&mut self, functions: Vec<u32>) {
        self.banned = functions;
        for (number, target) in (0u32..).zip(&mut self.targets) {
            target.ban(self.banned.binary_search(&number).is_ok());
        }
    }

    /// The number that is in the place of one that is not in use any more.
    #[cold]
    #[must_use]
    pub fn successor(&self, submission: &Submission) -> Submission {
        let mut function = submission.function;
        for _ in 0..STEPS_MAX {
            let Some(Target::Moved(to)) = self.targets.get(function as usize) else { break };
            function = *to;
        }
        Submission { function, ..*submission }
    }
}
