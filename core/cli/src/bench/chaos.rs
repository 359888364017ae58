//! `bench chaos`: workers, hosts and nodes are killed, stopped, starved and replaced under load; what became of every call, and how long things took. Runs the chaos
//! suite's program, which is built from the checkout.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::prepare::Checkout;
use super::report::{Aim, Report};
use super::suite::{self, Failed, Said};
use super::{Args, machine, stopped};
use crate::failure::Failure;

/// The random mix, which lasts as long as is asked for; all others are brief.
const MIX: &str = "K29";
/// How many there are, as `chaos --list` says.
const EXPERIMENTS: f64 = 50.0;
/// Parts of the time without `--minutes`: one for each experiment, and [`REPLACE_SHARES`] for each of [`REPLACE`].
const SHARES: f64 = EXPERIMENTS + 2.0 * REPLACE_SHARES;
/// In which workers are killed one at a time, with cores that are busy and with cores that have time to spare: again, and for longer, so that the rare
/// replacement that takes long is among those that are measured.
const REPLACE: [&str; 2] = ["K01", REPLACE_LIGHT];
const REPLACE_LIGHT: &str = "D02";
const REPLACE_SHARES: f64 = 4.0;

/// A line of the suite: what came of one experiment.
#[derive(Debug, Default, Deserialize)]
struct Row {
    experiment: String,
    seed: u64,
    ms: u64,
    skipped: Option<String>,
    problems: Vec<String>,
    counts: Counts,
    figures: BTreeMap<String, f64>,
    #[serde(default)]
    samples: BTreeMap<String, Vec<f64>>,
    replace_ms: Vec<f64>,
    #[serde(default)]
    replace_started_ms: Vec<f64>,
}

#[derive(Debug, Default, Deserialize)]
struct Counts {
    accepted: u64,
    completed: u64,
    lost: u64,
    doubled: u64,
    wrong: u64,
}

/// Exits with 1 where a call was lost, doubled or answered wrongly, or something else did not hold.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let checkout = Checkout::find()?;
    let program = checkout.test_program("chaos")?;
    let each = f64::from(args.seconds) / SHARES;
    let mut said = try_all(&program, &[], each)?;
    for experiment in REPLACE {
        said.extend(try_all(&program, &["--experiment", experiment], REPLACE_SHARES * each)?);
    }
    if let Some(minutes) = args.minutes {
        said.extend(try_all(&program, &["--experiment", MIX], f64::from(minutes * 60))?);
    }
    let on = ["answers checked", "processes killed by descriptor", "sandbox", "two workers"];
    let mut report = Report::new("chaos", machine::describe(), on.map(str::to_owned).into());
    add(&mut report, &said);
    report.print(args.json)?;
    if said.failed.is_empty() {
        return Ok(());
    }
    let (failed, of) = (said.failed.len(), said.rows.len());
    Err(stopped(format!("{failed} of {of} experiments failed: {}", suite::names(&said.failed))))
}

/// Runs experiments, each for so many seconds.
fn try_all(program: &Path, which: &[&str], seconds: f64) -> Result<Said<Row>, Failure> {
    let seconds = format!("{seconds:.3}");
    suite::run(program, &[&["--json", "--seconds", &seconds], which].concat(), |row: &Row| {
        row.failed(program, &seconds)
    })
}

impl Row {
    fn failed(&self, program: &Path, seconds: &str) -> Option<Failed> {
        let Self { experiment, seed, problems, .. } = self;
        let again = ["--experiment", experiment, "--seed", &seed.to_string(), "--seconds", seconds];
        (!problems.is_empty()).then(|| Failed {
            name: experiment.clone(),
            reasons: problems.clone(),
            seed: Some(*seed),
            again: suite::command_line(program, &again),
        })
    }
}

/// Adds all figures, and what has failed.
fn add(report: &mut Report, said: &Said<Row>) {
    let rows = &said.rows;
    let sum = |of: fn(&Counts) -> u64| rows.iter().map(|row| of(&row.counts)).sum::<u64>();
    let accepted = sum(|counts| counts.accepted);
    for (key, count) in [
        ("accepted", accepted),
        ("completed", sum(|counts| counts.completed)),
        ("lost", sum(|counts| counts.lost)),
        ("doubled", sum(|counts| counts.doubled)),
        ("wrong", sum(|counts| counts.wrong)),
    ] {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        report.add(key, count as f64, accepted);
    }
    let by_spares = |is_light: bool| {
        let rows = rows.iter().filter(move |row| (row.experiment == REPLACE_LIGHT) == is_light);
        rows.flat_map(|row| row.replace_ms.iter().copied())
    };
    spread(report, [("replace_ms_p50", 50), ("replace_ms_p99", 99)], by_spares(false));
    spread(report, [("replace_light_ms_p50", 50), ("replace_light_ms_p99", 99)], by_spares(true));
    let started = rows.iter().flat_map(|row| row.replace_started_ms.iter().copied());
    spread(report, [("replace_started_ms_p50", 50), ("replace_started_ms_p99", 99)], started);
    let dips = rows.iter().filter_map(|row| row.samples.get("throughput_killing_share")).flatten();
    // The worst hundredth is the lowest.
    let keys = [("throughput_killing_share_p50", 50), ("throughput_killing_share_p01", 1)];
    spread(report, keys, dips.copied());
    let figure = |name: &str| rows.iter().find_map(|row| row.figures.get(name)).copied();
    for (key, of) in [
        ("throughput_before", None),
        ("throughput_recovery_ms", None),
        ("p50_before_ms", Some("calls_before")),
        ("p99_before_ms", Some("calls_before")),
        ("p50_deploying_ms", Some("calls_deploying")),
        ("p99_deploying_ms", Some("calls_deploying")),
        ("p99_between_ms", None),
        ("p50_deploying_share", Some("calls_deploying")),
        ("p99_deploying_share", Some("calls_deploying")),
        ("survivor_p99_before_ms", None),
        ("survivor_p99_ms", None),
        ("goodput_peak", None),
        ("goodput_overloaded", None),
    ] {
        if let Some(value) = figure(key) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            let n = of.and_then(figure).map_or(1, |count| count as u64);
            report.add(key, value, n);
        }
    }
    let failed = said.failed.len();
    report.add("experiments", rows.len() as f64, 1);
    report.add("experiments_failed", failed as f64, 1);
    report.more = table(rows);
    report.aims = vec![Aim { text: format!("every experiment holds: {failed} do not"), met: failed == 0 }];
    report.failed.clone_from(&said.failed);
}

/// Adds percentiles of what was measured several times.
fn spread(report: &mut Report, keys: [(&'static str, usize); 2], values: impl Iterator<Item = f64>) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    for (key, part) in keys {
        let at = (values.len() * part / 100).min(values.len().saturating_sub(1));
        report.add(key, values.get(at).copied().unwrap_or_default(), values.len() as u64);
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    for Row { experiment, seed, ms, skipped, problems, counts, .. } in rows {
        let verdict = match skipped {
            _ if !problems.is_empty() => format!("FAILED: {}", problems.join("; ")),
            Some(why) => format!("skipped: {why}"),
            None => "ok".to_owned(),
        };
        text +=
            &format!("{experiment:<6}{ms:>8} ms  seed {seed:<12}{:>10} calls  {verdict}\n", counts.accepted);
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_suite_is_a_row() {
        let line = r#"{"experiment":"K01","seed":7,"ms":3,"skipped":null,"problems":["1 requests answered wrongly"],
            "counts":{"accepted":5,"completed":5,"ok":4,"lost":0,"doubled":0,"wrong":1,"refused":0,"late":0,"hung_up":0},
            "figures":{"kills":1.0,"p99_deploying_share":1.5,"calls_deploying":70.0},"samples":{"throughput_killing_share":[0.6,0.5]},
            "replace_ms":[4.5],"replace_started_ms":[]}"#;
        let row = serde_json::from_str::<Row>(line).expect("a row");
        let failed = row.failed(Path::new("chaos"), "0.5").expect("it has a problem");
        let mut report = Report::new("chaos", serde_json::Map::new(), Vec::new());
        add(&mut report, &Said { rows: vec![row], failed: vec![failed] });
        assert!(report.more.contains("answered wrongly"));
        let json = report.json();
        assert_eq!(
            json["failed"],
            serde_json::json!([{
                "name": "K01",
                "reasons": ["1 requests answered wrongly"],
                "seed": 7,
                "again": "chaos --experiment K01 --seed 7 --seconds 0.5",
            }])
        );
        assert_eq!(json["results"]["experiments_failed"], 1.0);
        for (key, value, n) in [
            ("replace_ms_p99", 4.5, 1),
            ("throughput_killing_share_p50", 0.6, 2),
            ("throughput_killing_share_p01", 0.5, 2),
            ("p99_deploying_share", 1.5, 70),
        ] {
            assert_eq!((&json["results"][key], &json["n"][key]), (&value.into(), &n.into()), "{key}");
        }
    }
}
