//! What a process and those around it hold: descriptors, memory, threads.

use std::fs;

/// A look at a process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Open descriptors; `None` where the kernel does not say, as of another process that is not dumpable.
    pub descriptors: Option<usize>,
    /// Resident bytes that are the process's own.
    pub resident: u64,
    /// Threads.
    pub threads: usize,
}

impl Footprint {
    /// Of the process with this number; all zero where there is none.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok().map(Iterator::count);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        let threads = usize::try_from(number("Threads:")).unwrap_or(usize::MAX);
        Self { descriptors, resident: number("RssAnon:") << 10, threads }
    }
}

/// From now on processes whose parents have died become children of this one, so that [`children`] finds them.
///
/// # Panics
/// Never: every process may do that.
pub fn adopt_orphans() {
    nix::sys::prctl::set_child_subreaper(true).expect("every process may do that");
}

/// Children of this process that are not dead and not among `known`.
#[must_use]
pub fn children(known: &[u32]) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| !known.contains(pid))
        .filter(|pid| stat(*pid).is_some_and(|(state, parent)| parent == std::process::id() && state != "Z"))
        .collect()
}

/// State and parent.
fn stat(pid: u32) -> Option<(String, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything.
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}
