//! The attack suite for `microfaas bench attacks`: one JSON object a line and case, in order, as they end.
//!
//! usage: bench-attacks SCRATCH

use std::io::Write as _;
use std::path::PathBuf;

use microfaas_e2e::attacks::{Arena, Settings, build_cases, own_cases};

fn main() -> std::io::Result<()> {
    let Some(scratch) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: bench-attacks SCRATCH");
        std::process::exit(2);
    };
    let cases = own_cases();
    let mut arena = Arena::new(Settings::new(build_cases(&scratch, &cases)), &cases);
    for case in &cases {
        let outcome = arena.run(case);
        let line = serde_json::json!({
            "case": case.name,
            "required": case.required(),
            "got": outcome.got(),
            "replaced": !outcome.same_worker,
            "ms": u64::try_from(outcome.longest.as_millis()).unwrap_or(u64::MAX),
            "wrong": outcome.wrong,
        });
        writeln!(std::io::stdout(), "{line}")?;
    }
    Ok(())
}
