//! Programs of the checkout that try many things and say a line of JSON of each: what does not hold is said at once, and a program that ends in the middle of it takes nothing
//! of that with it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use microfaas_node::{WORKER_PROGRAM, WORKER_VARIABLE};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::stopped;
use crate::failure::{Failure, error_line};
use crate::progress;

/// Of a line that is none of the suite's: how much of it is shown, in characters.
const SHOWN: usize = 200;

/// Something that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Failed {
    pub(super) name: String,
    pub(super) reasons: Vec<String>,
    /// Where chance has a part in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seed: Option<u64>,
    /// The command line that tries it again.
    pub(super) again: String,
}

impl Failed {
    /// One line, whatever is in the reasons.
    fn line(&self) -> String {
        let Self { name, reasons, seed, again } = self;
        let seed = seed.map(|seed| format!(" (seed {seed})")).unwrap_or_default();
        let reasons: Vec<String> =
            reasons.iter().map(|reason| reason.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        format!("{name} failed{seed}: {}; again: {again}", reasons.join("; "))
    }
}

/// What a program has said.
#[derive(Debug)]
pub(super) struct Said<R> {
    pub(super) rows: Vec<R>,
    pub(super) failed: Vec<Failed>,
}

impl<R> Said<R> {
    pub(super) fn extend(&mut self, more: Self) {
        self.rows.extend(more.rows);
        self.failed.extend(more.failed);
    }
}

/// The names of what failed, behind each other.
pub(super) fn names(failed: &[Failed]) -> String {
    failed.iter().map(|failed| failed.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Runs the program, with the worker that this command would start. `judge` says whether a row holds.
///
/// # Errors
/// It cannot be started. A program that ends as it should not is one more that failed.
pub(super) fn run<R: DeserializeOwned>(
    program: &Path,
    arguments: &[&str],
    judge: impl Fn(&R) -> Option<Failed>,
) -> Result<Said<R>, Failure> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    if let Ok(this) = std::env::current_exe() {
        let worker = this.with_file_name(WORKER_PROGRAM);
        if worker.is_file() && std::env::var_os(WORKER_VARIABLE).is_none() {
            command.env(WORKER_VARIABLE, worker);
        }
        command.env("MICROFAAS_COMMAND", this);
    }
    let mut child =
        command.spawn().map_err(|e| stopped(format!("cannot start {}: {e}", program.display())))?;
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    let mut note = |what: Failed| {
        progress::aside(|| error_line(&what.line()));
        failed.push(what);
    };
    let itself = |reason: String| Failed {
        name: program.file_name().unwrap_or_default().display().to_string(),
        reasons: vec![reason],
        seed: None,
        again: command_line(program, arguments),
    };
    let mut held = true;
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
        let line = line.map_err(|e| stopped(format!("cannot read what {} says: {e}", program.display())))?;
        match serde_json::from_str::<R>(&line) {
            Ok(row) => {
                if let Some(what) = judge(&row) {
                    held = false;
                    note(what);
                }
                rows.push(row);
            }
            Err(error) => {
                let shown: String = line.chars().take(SHOWN).collect();
                note(itself(format!("it said `{shown}`, which is no row: {error}")));
            }
        }
    }
    let status = child.wait().map_err(stopped)?;
    if !is_in_order(status, held) || rows.is_empty() {
        note(itself(format!("it ended with {status} after {} rows", rows.len())));
    }
    Ok(Said { rows, failed })
}

/// A program may exit with 1 to say once more that something did not hold.
fn is_in_order(status: ExitStatus, held: bool) -> bool {
    status.success() || (!held && status.code() == Some(1))
}

/// As a shell takes it.
pub(super) fn command_line(program: &Path, arguments: &[&str]) -> String {
    let program = program.display().to_string();
    let words = std::iter::once(program.as_str()).chain(arguments.iter().copied());
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@".contains(c);
    let quoted = words.map(|word| match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn judge(row: &Value) -> Option<Failed> {
        let reason = row["wrong"].as_str()?.to_owned();
        Some(Failed { name: "K1".into(), reasons: vec![reason], seed: Some(7), again: "again".into() })
    }

    fn said(script: &str) -> Said<Value> {
        run(Path::new("/bin/sh"), &["-c", script], judge).unwrap()
    }

    #[test]
    fn what_a_program_said_outlives_it() {
        let all_holds = said("echo '{}'; echo '{}'");
        assert_eq!((all_holds.rows.len(), all_holds.failed.len()), (2, 0));

        let one = said(r#"echo '{"wrong":"lost"}'; echo '{}'; exit 1"#);
        assert_eq!((one.rows.len(), one.failed), (2, vec![judge(&json!({"wrong": "lost"})).unwrap()]));

        let killed = said(r#"echo '{"wrong":"lost"}'; echo half; kill -KILL $$"#);
        assert_eq!(killed.rows.len(), 1);
        let reasons: Vec<_> = killed.failed.iter().map(|failed| failed.reasons[0].as_str()).collect();
        assert_eq!(reasons[0], "lost");
        assert!(reasons[1].starts_with("it said `half`, which is no row: "), "{reasons:?}");
        assert!(reasons[2].contains("signal: 9") && reasons[2].ends_with("after 1 rows"), "{reasons:?}");

        let unexplained = said("echo '{}'; exit 1");
        assert_eq!((unexplained.rows.len(), unexplained.failed.len()), (1, 1));
        assert_eq!(said("exit 0").failed.len(), 1, "it has tried nothing");
    }

    #[test]
    fn one_line_with_all_that_is_needed() {
        let reasons = vec!["1 lost".to_owned(), "it\nhangs".to_owned()];
        let failed = Failed { name: "K1".into(), reasons, seed: Some(7), again: "chaos --seed 7".into() };
        assert_eq!(failed.line(), "K1 failed (seed 7): 1 lost; it hangs; again: chaos --seed 7");
        assert_eq!(json!(failed)["seed"], 7);
        assert!(json!(Failed { seed: None, ..failed }).get("seed").is_none());
    }

    #[test]
    fn a_command_line_is_quoted() {
        assert_eq!(command_line(Path::new("t/chaos"), &["--seconds", "0.3"]), "t/chaos --seconds 0.3");
        assert_eq!(command_line(Path::new("my t/a"), &["it's", ""]), r"'my t/a' 'it'\''s' ''");
    }
}
