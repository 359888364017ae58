//! What a figure depends on beside the program: the machine, and what else it is doing.

use std::fs;

use serde_json::{Map, Value, json};

/// Processor, kernel, cores, and whether it is a virtual machine. What cannot be read is left out.
pub(super) fn describe() -> Map<String, Value> {
    let mut facts = Map::new();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    if let Some(model) = field("model name") {
        facts.insert("cpu".into(), model.into());
    }
    if let Some(flags) = field("flags") {
        facts.insert("virtual".into(), flags.split(' ').any(|flag| flag == "hypervisor").into());
    }
    if let Ok(cores) = std::thread::available_parallelism() {
        facts.insert("cores".into(), json!(cores.get()));
    }
    if let Ok(kernel) = fs::read_to_string("/proc/sys/kernel/osrelease") {
        facts.insert("kernel".into(), kernel.trim().into());
    }
    facts
}

/// The load average of the last minute; one measuring thread and one busy worker make 2.
pub(super) fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// CPU time that all threads of a process have had, in nanoseconds: exact while they sleep.
pub(super) fn cpu_ns(pid: u32) -> Option<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    tasks
        .map(|task| {
            let schedstat = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            schedstat.split(' ').next()?.parse::<u64>().ok()
        })
        .sum()
}

/// Whether a process's first thread sleeps.
pub(super) fn sleeps(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in brackets, may hold anything.
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('S'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_had_time_and_is_awake() {
        let pid = std::process::id();
        assert!(cpu_ns(pid).is_some());
        assert_eq!(cpu_ns(u32::MAX), None);
        assert!(!sleeps(u32::MAX));
        assert!(load().is_some_and(|load| load >= 0.0));
        assert!(describe().contains_key("cores"));
    }
}
