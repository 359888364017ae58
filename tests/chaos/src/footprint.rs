//! What this process and its descendants hold, as `/proc` shows it: what an experiment leaves is found here.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

/// By how much resident memory may have grown.
const GROWTH_KIB: u64 = 8 << 10;

/// What one process holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    /// Open descriptors.
    pub descriptors: u64,
    /// Of those: shared memory without a name.
    pub memfds: u64,
    /// Threads.
    pub threads: u64,
    /// Resident memory.
    pub kib: u64,
}

/// This process, and all that descend from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// This process.
    pub own: Holdings,
    /// All its descendants together, zombies apart.
    pub others: Holdings,
    /// How many those are.
    pub processes: u64,
    /// Descendants that have ended and nobody has asked how.
    pub zombies: u64,
}

/// Parent and state of a process.
#[must_use]
pub fn parent_and_state(pid: u32) -> Option<(u32, char)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let mut words = stat.rsplit_once(')')?.1.split_whitespace();
    let state = words.next()?.chars().next()?;
    Some((words.next()?.parse().ok()?, state))
}

/// Descendants of a process with their states, without itself.
#[must_use]
pub fn descendants(of: u32) -> Vec<(u32, char)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let all: BTreeMap<u32, (u32, char)> =
        pids.filter_map(|pid| Some((pid, parent_and_state(pid)?))).collect();
    let descends = |pid: u32| {
        std::iter::successors(all.get(&pid), |(parent, _)| all.get(parent))
            .take(64)
            .any(|(parent, _)| *parent == of)
    };
    all.iter().filter(|(pid, _)| descends(**pid)).map(|(pid, (_, state))| (*pid, *state)).collect()
}

impl Holdings {
    /// Of a process; nothing where it is gone.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let mut found = Self::default();
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            found.descriptors += 1;
            let target = fs::read_link(entry.path()).unwrap_or_default();
            found.memfds += u64::from(target.to_string_lossy().starts_with("/memfd:"));
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        (found.threads, found.kib) = (field("Threads:"), field("VmRSS:"));
        found
    }

    fn add(&mut self, other: Self) {
        self.descriptors += other.descriptors;
        self.memfds += other.memfds;
        self.threads += other.threads;
        self.kib += other.kib;
    }

    fn beyond(&self, before: &Self, whose: &str, processes: u64) -> Vec<String> {
        let fields = [
            ("descriptors", self.descriptors, before.descriptors, 0),
            ("memfds", self.memfds, before.memfds, 0),
            ("threads", self.threads, before.threads, 0),
            ("KiB of memory", self.kib, before.kib, GROWTH_KIB * processes),
        ];
        let more = fields.into_iter().filter(|(_, now, before, slack)| now > &(before + slack));
        more.map(|(what, now, before, _)| format!("{now} {what} of {whose}, {before} before")).collect()
    }
}

impl Footprint {
    /// As it is now.
    #[must_use]
    pub fn now() -> Self {
        Self::of(std::process::id())
    }

    /// Of another process and its descendants.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let mut found = Self { own: Holdings::of(pid), ..Self::default() };
        for (pid, state) in descendants(pid) {
            if state == 'Z' {
                found.zombies += 1;
                continue;
            }
            found.processes += 1;
            found.others.add(Holdings::of(pid));
        }
        found
    }

    /// What there is more of than before, one line each.
    #[must_use]
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        let mut more = self.own.beyond(&before.own, "the host", 1);
        more.extend(self.others.beyond(&before.others, "its processes", before.processes.max(1)));
        for (what, now, before) in
            [("processes", self.processes, before.processes), ("zombies", self.zombies, before.zombies)]
        {
            if now != before {
                more.push(format!("{now} {what}, {before} before"));
            }
        }
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_seen() {
        let before = Footprint::now();
        assert!(before.own.descriptors > 0 && before.own.threads > 0 && before.own.kib > 0);
        let file = fs::File::open("/proc/self/stat").expect("it is there");
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().expect("it starts");
        let more = Footprint::now().beyond(&before).join("; ");
        assert!(more.contains("descriptors of the host") && more.contains("1 processes, 0 before"), "{more}");
        child.kill().expect("it is ours");
        let is_zombie = || Footprint::now().zombies == 1;
        while !is_zombie() {
            std::thread::yield_now();
        }
        assert!(Footprint::now().beyond(&before).join("; ").contains("1 zombies"));
        child.wait().expect("it is ours");
        drop(file);
        assert_eq!(Footprint::now().zombies, 0);
    }
}
