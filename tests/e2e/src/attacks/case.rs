//! What a case's header says: which calls to make, and what must come of them.

use std::fs;
use std::path::{Path, PathBuf};

/// What a case is about; decides what it may be run without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Keeps the core, or blocks.
    Cpu,
    /// Uses up memory.
    Mem,
    /// Panics, aborts, breaks a rule of the machine.
    Fault,
    /// Asks the kernel for what a function has no business with.
    Syscall,
    /// Leaves something behind for the next call.
    State,
    /// Runs arbitrary code through a hole of the compiler.
    Hole,
    /// An honest function, which must succeed.
    Control,
}

/// What the first answer must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Equals {
    /// The request.
    Input,
    /// This.
    Text(Vec<u8>),
}

/// One file of `tests/attacks`.
#[derive(Debug, Clone)]
pub struct Case {
    /// The file's name without its extension; also the function's name.
    pub name: String,
    /// The source.
    pub file: PathBuf,
    /// What it is about.
    pub class: Class,
    /// The bodies to send, in order.
    pub calls: Vec<Vec<u8>>,
    /// Names of the statuses that each call may end with.
    pub statuses: Vec<String>,
    /// Whether the worker may go on, and whether it may be replaced.
    pub worker: (bool, bool),
    /// The next call to another function succeeds.
    pub next_ok: bool,
    /// How many more descriptors there may be afterwards.
    pub fd_delta: Option<usize>,
    /// How many more bytes may be resident after a thousand calls.
    pub rss_delta: Option<u64>,
    /// What the text about each call contains.
    pub detail: Option<String>,
    /// What no answer may contain.
    pub not_contains: Option<Vec<u8>>,
    /// What the answer of this call, from 0, may not contain.
    pub call_not_contains: Vec<(usize, Vec<u8>)>,
    /// Calls, from 0, whose answers are zeros.
    pub call_zero: Vec<usize>,
    /// What the first answer must be.
    pub equals: Option<Equals>,
    /// Most bytes of a text about the call.
    pub error_text_max: Option<usize>,
}

/// Most bytes of [`Completion::detail`](microfaas_node::Completion::detail): 1024 characters.
const DETAIL_BYTES_MAX: usize = 4096;

/// The cases of this repository; `MICROFAAS_ATTACKS` names another directory.
///
/// # Panics
/// As [`read_all`].
#[must_use]
pub fn own_cases() -> Vec<Case> {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../attacks");
    read_all(&std::env::var_os("MICROFAAS_ATTACKS").map_or_else(|| own.into(), PathBuf::from))
}

/// All cases in a directory, by name.
///
/// # Panics
/// Where one cannot be read or its header is not understood: a condition that nobody checks is a mistake.
#[must_use]
pub fn read_all(directory: &Path) -> Vec<Case> {
    let entries = fs::read_dir(directory).unwrap_or_else(|e| panic!("`{}`: {e}", directory.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a directory entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    files.sort();
    files.into_iter().map(read).collect()
}

fn read(file: PathBuf) -> Case {
    let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("`{}`: {e}", file.display()));
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut case = Case {
        name,
        file: file.clone(),
        class: Class::Control,
        calls: Vec::new(),
        statuses: Vec::new(),
        worker: (true, false),
        next_ok: true,
        fd_delta: None,
        rss_delta: None,
        detail: None,
        not_contains: None,
        call_not_contains: Vec::new(),
        call_zero: Vec::new(),
        equals: None,
        error_text_max: None,
    };
    for line in text.lines().map_while(|line| line.strip_prefix("//! ")) {
        let known = match line.strip_prefix("expect.") {
            Some(rest) => rest.split_once('=').and_then(|(key, value)| case.expect(key.trim(), value.trim())),
            None => line.split_once(':').and_then(|(key, value)| case.describe(key.trim(), value.trim())),
        };
        assert!(known.is_some(), "`{}`: `{line}` is not understood", file.display());
    }
    assert!(!case.calls.is_empty() && !case.statuses.is_empty(), "`{}`: no header", file.display());
    case
}

impl Case {
    fn describe(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "attack" | "what" | "profile" | "notes" => {}
            "class" => {
                self.class = match value {
                    "cpu" => Class::Cpu,
                    "mem" => Class::Mem,
                    "fault" => Class::Fault,
                    "syscall" => Class::Syscall,
                    "state" => Class::State,
                    "hole" => Class::Hole,
                    "control" | "ctl" => Class::Control,
                    _ => return None,
                }
            }
            "calls" => self.calls = value.split(" ; ").map(unescape).collect::<Option<_>>()?,
            _ => return None,
        }
        Some(())
    }

    fn expect(&mut self, key: &str, value: &str) -> Option<()> {
        if let Some((call, key)) = key.strip_prefix("call").and_then(|rest| rest.split_once('.')) {
            let call = call.parse::<usize>().ok()?.checked_sub(1)?;
            match (key, value) {
                ("not_contains", _) => self.call_not_contains.push((call, value.into())),
                ("equals_zero", "true") => self.call_zero.push(call),
                _ => return None,
            }
            return Some(());
        }
        match key {
            "status" => self.statuses = value.split('|').map(str::to_owned).collect(),
            "worker" => {
                let mut words = value.split('|');
                let either = value == "either";
                self.worker =
                    (either || words.clone().any(|w| w == "same"), either || words.any(|w| w == "restarted"));
            }
            "next_ok" => self.next_ok = value == "true",
            "fd_delta" => self.fd_delta = Some(value.parse().ok()?),
            "rss_delta" => {
                let mib = value.strip_prefix('<')?.strip_suffix("MiB after 1000 calls")?;
                self.rss_delta = Some(mib.parse::<u64>().ok()? << 20);
            }
            "detail" => self.detail = Some(value.into()),
            "not_contains" => self.not_contains = Some(value.into()),
            "equals" if value == "input" => self.equals = Some(Equals::Input),
            "equals" => self.equals = Some(Equals::Text(value.into())),
            "error_text" => self.error_text_max = Some(DETAIL_BYTES_MAX),
            // What they ask for is asserted of every case: the host goes on, nothing waits for ever. And a worker's output goes nowhere.
            "gateway" | "watchdog" | "log_bytes" => {}
            _ => return None,
        }
        Some(())
    }

    /// What the header asks for, in a few words.
    #[must_use]
    pub fn required(&self) -> String {
        let worker = match self.worker {
            (true, true) => "any worker",
            (true, false) => "same worker",
            _ => "new worker",
        };
        format!("{}, {worker}", self.statuses.join("/"))
    }
}

/// The bytes of a quoted text with Rust's escapes.
fn unescape(quoted: &str) -> Option<Vec<u8>> {
    let text = quoted.trim().strip_prefix('"')?.strip_suffix('"')?;
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let escape = rest.next()?;
        bytes.push(match escape {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'\\' | b'"' => escape,
            b'x' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            // Rust has `\0` only; the headers have other digits, too.
            b'0'..=b'9' => escape - b'0',
            _ => return None,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        assert_eq!(unescape(r#""a\x08\t\0\7\\\"""#), Some(vec![b'a', 8, 9, 0, 7, b'\\', b'"']));
        assert_eq!(unescape(r#""\q""#), None);
        assert_eq!(unescape("x"), None);
    }
}
