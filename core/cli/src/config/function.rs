//! `[function.NAME]`: the limits of one function.

use std::time::Duration;

use microfaas_node::{BUDGET_NS_MAX, Limits, Loading, Policy, QUANTUM_NS_MIN};

use super::section::Section;
use super::{BAN_AFTER_MAX, ConfigError, DAY, MS, value};

/// Most calls of a function that may be on their way at once; 0 is any number.
const CONCURRENCY_MAX: u64 = 1_000_000;

/// `[function.NAME]`.
#[derive(Debug)]
pub(crate) struct FunctionSettings {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) deadline: Option<Duration>,
    pub(crate) idempotent: Option<bool>,
    pub(crate) quantum: Option<Duration>,
    pub(crate) budget: Option<Duration>,
    pub(crate) policy: Option<Policy>,
    pub(crate) stateful: Option<bool>,
    pub(crate) ban_after: Option<u32>,
    pub(crate) concurrency: Option<u32>,
    pub(crate) load: Option<Loading>,
}

impl FunctionSettings {
    /// What is not given is the default, as far as what is given allows: a budget is at least the quantum.
    pub(crate) fn limits(&self) -> Limits {
        let default = Limits::default();
        // Both were checked to be at most an hour.
        let given = |time: Option<Duration>| time.and_then(|time| u64::try_from(time.as_nanos()).ok());
        let (quantum, budget) = (given(self.quantum), given(self.budget));
        let quantum_ns = quantum.unwrap_or(default.quantum_ns.min(budget.unwrap_or(u64::MAX)));
        Limits {
            quantum_ns,
            budget_ns: budget.unwrap_or(default.budget_ns.max(quantum_ns)),
            policy: self.policy.unwrap_or(default.policy),
            stateful: self.stateful.unwrap_or(default.stateful),
        }
    }
}

pub(super) fn function(all: &Section<'_>, mut section: Section<'_>) -> Result<FunctionSettings, ConfigError> {
    let name = section.name().to_owned();
    if !microfaas_abi::is_function_name(&name) {
        let problem = format!("is not a function name: {}", value::FUNCTION_NAME);
        return Err(all.value_error(section.line(), &name, problem));
    }
    let (shortest, longest) = (Duration::from_nanos(QUANTUM_NS_MIN), Duration::from_nanos(BUDGET_NS_MAX));
    let quantum = section.get("quantum", |v| value::duration(v, shortest, longest))?;
    let settings = FunctionSettings {
        name,
        line: section.line(),
        deadline: section.get("deadline", |v| value::duration(v, MS, DAY))?,
        idempotent: section.get("idempotent", value::boolean)?,
        quantum,
        budget: section.get("budget", |v| value::duration(v, quantum.unwrap_or(shortest), longest))?,
        policy: section.get("policy", value::policy)?,
        stateful: section.get("stateful", value::boolean)?,
        ban_after: section.get("ban_after", |v| value::count(v, 0, BAN_AFTER_MAX))?,
        concurrency: section.get("concurrency", |v| value::count(v, 0, CONCURRENCY_MAX))?,
        load: section.get("load", value::loading)?,
    };
    section.finish()?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, parse};
    use super::*;

    #[test]
    fn a_function_has_the_core_for_as_long_as_it_may() {
        let limits = |keys: &str| parse(&format!("[function.f]\n{keys}")).unwrap().functions[0].limits();
        let default = Limits::default();
        assert_eq!(limits(""), default);
        let (quantum_ns, budget_ns) = (20_000, 2_000_000);
        assert_eq!(
            limits("quantum = \"20us\"\nbudget = \"2ms\"\npolicy = \"kill\"\nstateful = true"),
            Limits { quantum_ns, budget_ns, policy: Policy::Kill, stateful: true }
        );
        // The other of the two follows where its default would contradict.
        let five = 5_000_000_000;
        assert_eq!(limits("quantum = \"5s\""), Limits { quantum_ns: five, budget_ns: five, ..default });
        let short = 100_000;
        assert_eq!(limits("budget = \"100us\""), Limits { quantum_ns: short, budget_ns: short, ..default });
        for (keys, error) in [
            ("quantum = \"0s\"", "2: `quantum` in [function.f] is 0s, allowed are 20us to 1h"),
            ("budget = \"0s\"", "2: `budget` in [function.f] is 0s, allowed are 20us to 1h"),
            (
                "budget = \"1ms\"\nquantum = \"2ms\"",
                "2: `budget` in [function.f] is 1ms, allowed are 2ms to 1h",
            ),
            ("policy = \"fair\"", "2: `policy` in [function.f] is \"fair\", expected \"share\" or \"kill\""),
            ("policy = 1", "2: `policy` in [function.f] is an integer, expected \"share\" or \"kill\""),
        ] {
            check(&format!("[function.f]\n{keys}\n"), error);
        }
        check("[node]\nban_after = -1\n", "2: `ban_after` in [node] is -1, allowed are 0 to 1000000");
        check(
            "[function.f]\nban_after = 1000001\n",
            "2: `ban_after` in [function.f] is 1000001, allowed are 0 to 1000000",
        );
        check(
            "[node]\nsuspended_max = 1025\n",
            "2: `suspended_max` in [node] is 1025, allowed are 0 to 1024",
        );
        let range = "allowed are 65536 to";
        check(
            "[node]\nstack_bytes = 4096\n",
            &format!("2: `stack_bytes` in [node] is 4096 bytes, {range} 1073741824"),
        );
        check(
            "[node]\narena_bytes = 4096\n",
            &format!("2: `arena_bytes` in [node] is 4096 bytes, {range} 68719476736"),
        );
    }
}
