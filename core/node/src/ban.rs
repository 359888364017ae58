//! Which functions are not called any more, and what led to it.
//!
//! | what a call did | what comes of it |
//! | --- | --- |
//! | broke memory safety: a wild access, a system call that no safe code makes | every function of its module is banned at once: what it has shown is that its code is not what it is taken for |
//! | FAULT otherwise (stack overflow, trap, abort), DENIED | counts; the function is banned when it has as many as [`ban_after`](crate::FunctionConfig::ban_after) says |
//! | ERROR, PANIC, OOM, TIMEOUT | nothing: such an end depends on the request, and costs nobody but its caller |
//!
//! Counts are those of one deployed module's life. A ban is a set in the node's private memory, which a submitter does not look at
//! while it is empty. Hosts that are attached do not have it: workers are told of it too, and refuse what still comes; and they tell the node of faults that it does not
//! see. What a worker says of these is believed: one that was taken over can have others banned.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use microfaas_lane::Status;

use crate::{CallError, FunctionConfig, FunctionInfo, Node};

/// Why a function is banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BanCause {
    /// It has faulted as often as it may.
    Faults,
    /// It, or another function of its module, broke memory safety.
    MemorySafety,
}

impl std::fmt::Display for BanCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Faults => "too many faults",
            Self::MemorySafety => "its module broke memory safety",
        })
    }
}

/// A banned function.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ban {
    /// Its name.
    pub function: String,
    /// Why.
    pub cause: BanCause,
    /// Its own calls that ended FAULT or DENIED, since it was deployed or its last ban was lifted.
    pub faults: u32,
}

/// Whether such an end of a call counts.
#[inline]
pub(crate) fn counts(status: Status) -> bool {
    matches!(status, Status::Fault | Status::Denied)
}

#[derive(Debug)]
struct Row {
    name: String,
    module: u32,
    ban_after: u32,
    faults: u32,
    cause: Option<BanCause>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Bans {
    /// Whether [`banned`](Self::banned) holds anything.
    any: AtomicBool,
    /// Numbers of the banned functions, in order.
    banned: ArcSwap<Vec<u32>>,
    /// By the function's number.
    rows: Mutex<BTreeMap<u32, Row>>,
    /// The set has changed since the supervisor looked.
    is_new: AtomicBool,
}

impl Bans {
    /// Functions that are deployed begin their lives: nothing counts against them. Those of one file are one module. `default` is for those whose
    /// settings do not say after how many faults they are banned; 0 is never.
    pub(crate) fn watch(
        &self,
        functions: &[FunctionInfo],
        configs: &[(String, FunctionConfig)],
        default: u32,
    ) {
        let configs: HashMap<&str, Option<u32>> =
            configs.iter().map(|(name, config)| (name.as_str(), config.ban_after)).collect();
        // A module goes by the number of its first function, which no other deployment has.
        let mut modules: HashMap<&Path, u32> = HashMap::new();
        let mut rows = self.rows();
        for FunctionInfo { id, name, module, .. } in functions {
            let module = *modules.entry(module).or_insert(*id);
            let ban_after = configs.get(name.as_str()).copied().flatten().unwrap_or(default);
            rows.insert(*id, Row { name: name.clone(), module, ban_after, faults: 0, cause: None });
        }
        self.publish(&rows);
    }

    /// Functions that are not deployed any more: what they do does not count.
    pub(crate) fn forget(&self, functions: impl Iterator<Item = u32>) {
        let mut rows = self.rows();
        for function in functions {
            rows.remove(&function);
        }
        self.publish(&rows);
    }

    /// A function may be called.
    ///
    /// # Errors
    /// [`CallError::Banned`].
    ///
    /// # Cost
    /// One load while nothing is banned, no lock in any case.
    #[inline]
    pub(crate) fn check(&self, function: u32) -> Result<(), CallError> {
        if self.any.load(Ordering::Acquire) && self.banned.load().binary_search(&function).is_ok() {
            return Err(CallError::Banned);
        }
        Ok(())
    }

    /// A call has ended in a way that [`counts`]. True where somebody is banned for it: then the supervisor is to be woken.
    #[cold]
    pub(crate) fn fault(&self, function: u32, is_unsafe: bool) -> bool {
        let mut rows = self.rows();
        let Some(row) = rows.get_mut(&function) else { return false };
        row.faults = row.faults.saturating_add(1);
        // It is banned for this, and so is whoever is with it: a worker may say so as often as it likes.
        if row.cause.is_some_and(|cause| cause == BanCause::MemorySafety || !is_unsafe) {
            return false;
        }
        let (module, too_many) = (row.module, row.ban_after != 0 && row.faults >= row.ban_after);
        let cause = match is_unsafe {
            true => BanCause::MemorySafety,
            false if too_many => BanCause::Faults,
            false => return false,
        };
        for (number, row) in rows.iter_mut() {
            let meant = if is_unsafe { row.module == module } else { *number == function };
            // The graver cause stays.
            if meant && row.cause.is_none_or(|old| old == BanCause::Faults && is_unsafe) {
                row.cause = Some(cause);
                tracing::error!(function = row.name, faults = row.faults, %cause, "function is banned");
            }
        }
        self.publish(&rows);
        true
    }

    /// Supervisor: numbers of the banned functions, where they are others than when it last looked.
    pub(crate) fn news(&self) -> Option<Vec<u32>> {
        self.is_new.swap(false, Ordering::AcqRel).then(|| self.numbers())
    }

    /// Numbers of the banned functions, in order.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.banned.load().as_ref().clone()
    }

    pub(crate) fn list(&self) -> Vec<Ban> {
        let banned =
            |row: &Row| row.cause.map(|cause| Ban { function: row.name.clone(), cause, faults: row.faults });
        self.rows().values().filter_map(banned).collect()
    }

    /// `None` where no function has that name.
    pub(crate) fn lift(&self, name: &str) -> Option<bool> {
        let mut rows = self.rows();
        let meant: Vec<(u32, u32, Option<BanCause>)> = rows
            .iter()
            .filter(|(_, row)| row.name == name)
            .map(|(number, row)| (*number, row.module, row.cause))
            .collect();
        if meant.is_empty() {
            return None;
        }
        let mut lifted = false;
        for (function, module, cause) in meant {
            let Some(cause) = cause else { continue };
            for (number, row) in rows.iter_mut() {
                let whole = cause == BanCause::MemorySafety && row.module == module;
                if *number == function || whole && row.cause == Some(cause) {
                    (row.cause, row.faults) = (None, 0);
                    lifted = true;
                    tracing::info!(function = row.name, "ban is lifted");
                }
            }
        }
        self.publish(&rows);
        Some(lifted)
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<u32, Row>> {
        // No panic leaves a row half changed.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what submitters look at the same as the rows.
    fn publish(&self, rows: &BTreeMap<u32, Row>) {
        let banned: Vec<u32> =
            rows.iter().filter(|(_, row)| row.cause.is_some()).map(|(number, _)| *number).collect();
        let any = !banned.is_empty();
        if **self.banned.load() == banned {
            return;
        }
        self.banned.store(banned.into());
        self.is_new.store(true, Ordering::Release);
        self.any.store(any, Ordering::Release);
    }
}

impl Node {
    /// The functions that are banned now. A host that is attached knows of none: it asks its node.
    #[must_use]
    pub fn bans(&self) -> Vec<Ban> {
        self.shared().hub.bans.list()
    }

    /// Lifts the ban of a function; one that its whole module has for breaking memory safety is lifted for the module. True where there was one.
    ///
    /// # Errors
    /// [`CallError::UnknownFunction`], on a host that is attached in any case.
    pub fn lift_ban(&self, name: &str) -> Result<bool, CallError> {
        let lifted = self.shared().hub.bans.lift(name).ok_or(CallError::UnknownFunction)?;
        self.shared().hub.wake_supervisor();
        Ok(lifted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(id: u32, name: &str, module: &str) -> FunctionInfo {
        FunctionInfo {
            id,
            name: name.to_owned(),
            module: module.into(),
            deadline: std::time::Duration::MAX,
            idempotent: false,
            limits: crate::Limits::default(),
            concurrency: 0,
        }
    }

    /// `a` and `b` of one module, banned after 3 faults and never, and `c` of another, after 1.
    fn bans() -> Bans {
        let bans = Bans::default();
        let functions = [info(0, "a", "x.so"), info(1, "b", "x.so"), info(2, "c", "y.so")];
        let config = |name: &str, faults| (name.to_owned(), FunctionConfig::default().ban_after(faults));
        bans.watch(&functions, &[config("a", 3), config("c", 1)], 0);
        bans
    }

    fn banned(bans: &Bans) -> Vec<(String, BanCause)> {
        let list: Vec<_> = bans.list().into_iter().map(|ban| (ban.function, ban.cause)).collect();
        for (number, name) in [(0, "a"), (1, "b"), (2, "c")] {
            let listed = list.iter().any(|(banned, _)| banned == name);
            assert_eq!(bans.check(number).is_err(), listed, "{name}");
        }
        list
    }

    #[test]
    fn a_function_is_banned_after_as_many_faults_as_it_may_have() {
        let bans = bans();
        for _ in 0..2 {
            bans.fault(0, false);
            assert_eq!(banned(&bans), []);
        }
        bans.fault(0, false);
        assert_eq!(banned(&bans), [("a".to_owned(), BanCause::Faults)]);
        (0..100).for_each(|_| {
            bans.fault(1, false);
        });
        assert_eq!(banned(&bans).len(), 1, "0 is never");
        assert_eq!((bans.lift("a"), bans.lift("a"), bans.lift("z")), (Some(true), Some(false), None));
        bans.fault(0, false);
        assert_eq!(banned(&bans), [], "counting starts again");
    }

    #[test]
    fn broken_memory_safety_bans_the_module_and_no_other() {
        let bans = bans();
        (0..3).for_each(|_| {
            bans.fault(0, false);
        });
        bans.fault(1, true);
        let both = ["a", "b"].map(|name| (name.to_owned(), BanCause::MemorySafety));
        assert_eq!(banned(&bans), both);
        assert_eq!(bans.lift("b"), Some(true));
        assert_eq!(banned(&bans), []);
    }

    #[test]
    fn who_is_banned_is_banned_once() {
        let bans = bans();
        assert!(bans.fault(2, false) && !bans.fault(2, false));
        assert!(bans.fault(2, true), "for a graver cause");
        assert!(!bans.fault(2, true) && !bans.fault(2, false));
        assert_eq!(bans.list()[0].faults, 5);
        assert_eq!((bans.lift("c"), bans.fault(2, false)), (Some(true), true));
        assert!(bans.fault(0, true) && !bans.fault(1, true), "with its module");
    }

    #[test]
    fn a_module_that_is_deployed_again_starts_anew() {
        let bans = bans();
        bans.fault(2, true);
        assert_eq!(banned(&bans).len(), 1);
        bans.watch(&[info(2, "c", "y.so")], &[], 0);
        assert_eq!(banned(&bans), []);
        bans.fault(0, true);
        assert_eq!(banned(&bans).len(), 2);
        bans.forget([0, 1].into_iter());
        assert_eq!(banned(&bans), [], "functions that are gone");
        bans.fault(7, true);
        assert_eq!(banned(&bans), [], "a function that nobody knows");
    }
}
