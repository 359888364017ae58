//! From the list of [`rules`](crate::rules) to a filter in the kernel, by way of libseccomp.

use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};

use crate::rules::{NEVER_LEGITIMATE, RULES, Rule, Value};

/// What [`Value`]s stand for in this process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbers {
    pub(crate) process: u32,
    pub(crate) thread: u32,
}

/// Makes the filter and puts it in force, for this thread and all that it might start, for ever.
///
/// Anything that is not on the list, of whatever architecture (32-bit and x32 calls included), is a SIGSYS. It is never `KILL`: the
/// call is refused as surely, and its caller gets an answer.
pub(crate) fn load(numbers: Numbers) -> Result<(), SeccompError> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Trap)?;
    filter.set_act_badarch(ScmpAction::Trap)?;
    // Set before, as a layer of its own.
    filter.set_ctl_nnp(false)?;
    // A binary tree in place of a list. Libraries before 2.5 do not know it, and then it is a list.
    let _ = filter.set_ctl_optimize(2);
    for rule in RULES {
        add(&mut filter, rule, numbers)?;
    }
    filter.load()
}

fn add(filter: &mut ScmpFilterContext, rule: &Rule, numbers: Numbers) -> Result<(), SeccompError> {
    let call = ScmpSyscall::from_name(rule.call)?;
    let conditions: Vec<ScmpArgCompare> = rule
        .when
        .iter()
        .map(|when| {
            let value = value(when.value, numbers) & when.mask;
            ScmpArgCompare::new(when.argument, ScmpCompareOp::MaskedEqual(when.mask), value)
        })
        .collect();
    filter.add_rule_conditional_exact(ScmpAction::Allow, call, &conditions)?;
    Ok(())
}

fn value(value: Value, numbers: Numbers) -> u64 {
    match value {
        Value::Is(number) => number,
        Value::ProcessId => u64::from(numbers.process),
        Value::ThreadId => u64::from(numbers.thread),
    }
}

/// A system call as a SIGSYS tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeniedCall {
    /// Its number.
    pub number: i32,
    /// `AUDIT_ARCH_*` of the way by which it was made.
    pub architecture: u32,
}

/// `AUDIT_ARCH_X86_64`.
const NATIVE: u32 = 0xc000_003e;
/// Set in the numbers of the x32 interface.
const X32_BIT: i32 = 0x4000_0000;

impl DeniedCall {
    /// Whether it came by the one interface that compilers use.
    fn is_native(self) -> bool {
        self.architecture == NATIVE && self.number & X32_BIT == 0
    }

    /// Its name, or its number where it has none.
    ///
    /// # Cost
    /// A search through a table of some 500 names, and an allocation.
    #[must_use]
    pub fn name(self) -> String {
        let Self { number, architecture } = self;
        if !self.is_native() {
            let interface = if architecture == NATIVE { "x32" } else { "32-bit" };
            return format!("{} of the {interface} interface", number & !X32_BIT);
        }
        let name = ScmpSyscall::from_raw_syscall(number).get_name_by_arch(ScmpArch::X8664);
        name.unwrap_or_else(|_| format!("number {number}"))
    }

    /// Whether safe code might have made it, if only by way of the standard library. Where not, the worker's memory cannot be trusted.
    #[must_use]
    pub fn may_be_safe_code(self) -> bool {
        self.is_native() && !NEVER_LEGITIMATE.contains(&self.name().as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_names() {
        let call = |number, architecture| DeniedCall { number, architecture };
        assert_eq!(call(257, NATIVE).name(), "openat");
        assert_eq!(call(9999, NATIVE).name(), "number 9999");
        assert_eq!(call(39 | X32_BIT, NATIVE).name(), "39 of the x32 interface");
        assert_eq!(call(20, 0x4000_0003).name(), "20 of the 32-bit interface");
        assert!(call(257, NATIVE).may_be_safe_code());
        assert!(!call(101, NATIVE).may_be_safe_code(), "ptrace");
        assert!(!call(39 | X32_BIT, NATIVE).may_be_safe_code());
        assert!(!call(20, 0x4000_0003).may_be_safe_code());
    }

    #[test]
    fn every_name_on_both_lists_is_a_system_call() {
        for name in RULES.iter().map(|rule| rule.call).chain(NEVER_LEGITIMATE.iter().copied()) {
            let call = ScmpSyscall::from_name(name).unwrap();
            assert!(call.as_raw_syscall() >= 0, "{name}");
        }
    }
}
