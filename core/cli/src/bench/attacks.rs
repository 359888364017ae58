//! `bench attacks`: every hostile function of `tests/attacks` on a node that serves another function at the same time, what each must lead to, and what came of
//! it. Runs the end-to-end tests' runner, which is built from the checkout.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use microfaas_node::{WORKER_PROGRAM, WORKER_VARIABLE};
use serde::Deserialize;

use super::prepare::Checkout;
use super::report::{Aim, Report};
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
    let rows = run_suite(program, &checkout)?;
    let machine = machine::describe();
    let on = ["limits of CPU time, memory and stack", "sandbox", "statics reset after each call"];
    let mut report = Report::new("attacks", machine, on.map(str::to_owned).into());
    let failed = rows.iter().filter(|row| !row.wrong.is_empty()).count();
    let replaced = rows.iter().filter(|row| row.replaced).count();
    let cases = rows.len() as u64;
    for (key, count) in [
        ("cases", rows.len()),
        ("passed", rows.len() - failed),
        ("failed", failed),
        ("worker_restarts", replaced),
    ] {
        #[expect(clippy::cast_precision_loss, reason = "some dozens")]
        report.add(key, count as f64, cases);
    }
    report.more = table(&rows);
    report.aims =
        vec![Aim { text: format!("every case ends as it must: {failed} do not"), met: failed == 0 }];
    report.print(args.json)?;
    if failed > 0 {
        return Err(stopped(format!("{failed} of {cases} cases were not contained")));
    }
    Ok(())
}

fn run_suite(program: PathBuf, checkout: &Checkout) -> Result<Vec<Row>, Failure> {
    let mut command = Command::new(&program);
    command.arg(checkout.folder()?).stdin(Stdio::null()).stdout(Stdio::piped());
    // The worker that this command would start.
    let worker = std::env::current_exe().map(|exe| exe.with_file_name(WORKER_PROGRAM));
    if let Some(worker) = worker.ok().filter(|worker| worker.is_file())
        && std::env::var_os(WORKER_VARIABLE).is_none()
    {
        command.env(WORKER_VARIABLE, worker);
    }
    let mut child =
        command.spawn().map_err(|e| stopped(format!("cannot start {}: {e}", program.display())))?;
    let lines = child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines());
    let rows: Result<Vec<Row>, Failure> = lines
        .map(|line| serde_json::from_str(&line.map_err(stopped)?).map_err(stopped))
        .inspect(|row: &Result<Row, Failure>| {
            if let Ok(row) = row {
                tracing::info!(case = row.case, got = row.got, "done");
            }
        })
        .collect();
    let status = child.wait().map_err(stopped)?;
    if !status.success() {
        return Err(stopped(format!("the suite's runner failed ({status})")));
    }
    rows
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
        assert!(table(&[row]).contains("call 1 ended OK"));
    }
}
