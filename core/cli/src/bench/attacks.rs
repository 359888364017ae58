//! `bench attacks`: every hostile function of `tests/attacks` on a node that serves another function at the same time, what each must lead to, and what came of
//! it. Runs the end-to-end tests' runner, which is built from the checkout.

use std::path::Path;

use serde::Deserialize;

use super::prepare::Checkout;
use super::report::{Aim, Report};
use super::suite::{self, Failed, Said};
use super::{Args, machine, stopped};
use crate::failure::Failure;

/// A line of the runner.
#[derive(Debug, Deserialize)]
struct Row {
    case: String,
    required: String,
    got: String,
    replaced: bool,
    ms: u64,
    wrong: Vec<String>,
}

/// Exits with 1 where a case was not contained. Takes as long as the cases do: `--seconds` does not bound it.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let checkout = Checkout::find()?;
    let program = checkout.test_program("bench-attacks")?;
    let folder = checkout.folder()?.display().to_string();
    let Said { rows, failed } = suite::run(&program, &[&folder], |row: &Row| row.failed(&program, &folder))?;
    let machine = machine::describe();
    let on = ["limits of CPU time, memory and stack", "sandbox", "statics reset after each call"];
    let mut report = Report::new("attacks", machine, on.map(str::to_owned).into());
    let passed = rows.iter().filter(|row| row.wrong.is_empty()).count();
    let replaced = rows.iter().filter(|row| row.replaced).count();
    let cases = rows.len() as u64;
    for (key, count) in
        [("cases", rows.len()), ("passed", passed), ("failed", failed.len()), ("worker_restarts", replaced)]
    {
        #[expect(clippy::cast_precision_loss, reason = "some dozens")]
        report.add(key, count as f64, cases);
    }
    report.more = table(&rows);
    let met = failed.is_empty();
    report.aims = vec![Aim { text: format!("every case ends as it must: {} do not", failed.len()), met }];
    report.failed = failed;
    report.print(args.json)?;
    if met {
        return Ok(());
    }
    let (failed, names) = (report.failed.len(), suite::names(&report.failed));
    Err(stopped(format!("{failed} of {cases} cases were not contained: {names}")))
}

impl Row {
    fn failed(&self, program: &Path, folder: &str) -> Option<Failed> {
        (!self.wrong.is_empty()).then(|| Failed {
            name: self.case.clone(),
            reasons: self.wrong.clone(),
            seed: None,
            again: suite::command_line(program, &[folder, &self.case]),
        })
    }
}

fn table(rows: &[Row]) -> String {
    let width = |text: fn(&Row) -> &str| rows.iter().map(|row| text(row).len()).max().unwrap_or(0) + 2;
    let (case_width, required_width, got_width) =
        (width(|row| &row.case), width(|row| &row.required), width(|row| &row.got));
    let line = |case: &str, required: &str, got: &str, worker: &str, ms: &str, verdict: &str| {
        format!(
            "{case:<case_width$}{required:<required_width$}{got:<got_width$}{worker:<8}{ms:>6}  {verdict}\n"
        )
    };
    let mut text = line("case", "required", "got", "worker", "ms", "verdict");
    for row in rows {
        let worker = if row.replaced { "new" } else { "same" };
        let verdict = if row.wrong.is_empty() { "pass".to_owned() } else { row.wrong.join("; ") };
        text += &line(&row.case, &row.required, &row.got, worker, &row.ms.to_string(), &verdict);
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_runner_is_a_row() {
        let line = r#"{"case":"001_x","required":"TIMEOUT, same worker","got":"OK","replaced":false,"ms":3,"wrong":["call 1 ended OK: "]}"#;
        let row: Row = serde_json::from_str(line).expect("a row");
        let failed = row.failed(Path::new("bench-attacks"), "scratch").expect("something is wrong");
        assert_eq!((failed.reasons.len(), failed.again.as_str()), (1, "bench-attacks scratch 001_x"));
        assert!(table(&[row]).contains("call 1 ended OK"));
    }
}
