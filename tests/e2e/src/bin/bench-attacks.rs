//! The attack suite for `microfaas bench attacks`: one JSON object a line and case, in order, as they end.
//!
//! usage: bench-attacks SCRATCH [CASE…]

use std::io::Write as _;
use std::path::PathBuf;

use microfaas_e2e::attacks::{Arena, Settings, build_cases, own_cases};

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(scratch) = arguments.next().map(PathBuf::from) else {
        eprintln!("usage: bench-attacks SCRATCH [CASE…]");
        std::process::exit(2);
    };
    let (only, mut cases): (Vec<_>, _) = (arguments.collect(), own_cases());
    if let Some(unknown) = only.iter().find(|name| cases.iter().all(|case| case.name.as_str() != **name)) {
        eprintln!("bench-attacks: there is no case `{}`", unknown.display());
        std::process::exit(2);
    }
    cases.retain(|case| only.is_empty() || only.iter().any(|name| case.name.as_str() == *name));
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
