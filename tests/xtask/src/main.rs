//! The rules of this repository that no compiler checks: `cargo run -p microfaas-xtask -- tidy [--fix-hash]`.
//!
//! Each rule is a module with a `check` that maps the repository (or one file) to findings; none of them
//! stops at the first. Output: one `file:line: what` per finding, exit code 1 if there is any, 2 if the
//! check itself could not run.

mod deps;
mod finding;
mod lexer;
mod machine;
mod protocol;
mod readme;
mod size;
mod tree;
mod unsafety;

use std::process::ExitCode;

use finding::Finding;
use tree::Tree;

const USAGE: &str = "usage: cargo run -p microfaas-xtask -- tidy [--fix-hash]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args.as_slice() {
        ["tidy"] => tidy(false),
        ["tidy", "--fix-hash"] => tidy(true),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(findings) if findings.is_empty() => {
            say(&mut std::io::stdout(), "tidy: no findings", ExitCode::SUCCESS)
        }
        Ok(findings) => {
            let mut text: Vec<String> = findings.iter().map(Finding::to_string).collect();
            text.push(format!("tidy: {} finding(s)", findings.len()));
            say(&mut std::io::stderr(), &text.join("\n"), ExitCode::from(1))
        }
        Err(why) => say(&mut std::io::stderr(), &format!("xtask: {why}"), ExitCode::from(2)),
    }
}

/// Prints `text`; a closed output is no reason to answer differently.
fn say(to: &mut impl std::io::Write, text: &str, code: ExitCode) -> ExitCode {
    let _ = writeln!(to, "{text}");
    code
}

/// Runs every rule over the work tree that `cargo metadata` reports.
fn tidy(fix_hash: bool) -> Result<Vec<Finding>, String> {
    let metadata = deps::Metadata::of_this_workspace()?;
    if fix_hash {
        protocol::fix(&Tree::of_git(&metadata.workspace_root)?)?;
    }
    let tree = Tree::of_git(&metadata.workspace_root)?;
    let mut findings = deps::check(&metadata);
    findings.extend(size::check(&tree));
    findings.extend(unsafety::check(&tree));
    findings.extend(protocol::check(&tree));
    findings.extend(machine::check(&tree));
    findings.extend(readme::check(&tree));
    findings.sort();
    Ok(findings)
}
