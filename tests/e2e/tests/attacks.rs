//! Every hostile function of `tests/attacks`, on a node that serves another function at the same time.
//!
//! Needs the worker's program: `cargo build -p microfaas-worker`. `MICROFAAS_ATTACKS` names another directory of cases.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use microfaas_e2e::Watchdog;
use microfaas_e2e::attacks::{self, Arena, Case, Settings};

const LIMIT: Duration = Duration::from_secs(600);

fn scratch() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn cases() -> Vec<Case> {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../attacks");
    attacks::read_all(&std::env::var_os("MICROFAAS_ATTACKS").map_or_else(|| own.into(), PathBuf::from))
}

fn settings(modules: PathBuf) -> Settings {
    Settings {
        modules,
        budget: Duration::from_millis(200),
        quantum: Duration::from_millis(1),
        deadline: Duration::from_secs(10),
        stall: Duration::from_millis(500),
        worker: None,
    }
}

#[test]
fn every_attack_ends_as_its_header_says() {
    let watchdog = Watchdog::new(LIMIT);
    let cases = cases();
    let mut arena = Arena::new(settings(attacks::build_cases(scratch(), &cases)), &cases);
    let mut table =
        format!("{:<32} {:<44} {:<28} {:<6} {:>8}  verdict\n", "case", "required", "got", "worker", "ms");
    let mut failed = 0;
    for case in &cases {
        let row = format!("{:<32} {:<44}", case.name, case.required());
        let outcome = arena.run(case);
        let mut got: Vec<&str> = outcome.statuses.iter().map(|status| status.name()).collect();
        got.dedup();
        let worker = if outcome.same_worker { "same" } else { "new" };
        let verdict =
            if outcome.wrong.is_empty() { "as required".to_owned() } else { outcome.wrong.join("; ") };
        failed += usize::from(!outcome.wrong.is_empty());
        let ms = outcome.longest.as_millis();
        writeln!(table, "{row} {:<28} {worker:<6} {ms:>8}  {verdict}", got.join(",")).unwrap();
    }
    eprintln!("{table}");
    assert_eq!(failed, 0, "{failed} of {} cases were not contained:\n{table}", cases.len());
    drop(watchdog);
}
