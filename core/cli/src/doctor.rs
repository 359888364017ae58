//! `microfaas doctor`: what this machine grants to a worker's sandbox.

use std::io::{self, Write as _};
use std::process::ExitCode;

use microfaas_node::SandboxPolicy;
use serde_json::json;

use crate::args::Doctor;
use crate::failure::Failure;

/// Tries the sandbox in a child. The process has one thread, as the probe demands: nothing was started before.
pub(crate) fn run(args: &Doctor) -> Result<ExitCode, Failure> {
    let probed = microfaas_sandbox::probe(&SandboxPolicy::default());
    let mut out = io::stdout().lock();
    let written = match (&probed, args.json) {
        (Ok(report), true) => writeln!(out, "{}", json!({ "workers_can_start": true, "sandbox": report })),
        (Ok(report), false) => write!(out, "{report}"),
        (Err(error), true) => {
            writeln!(out, "{}", json!({ "workers_can_start": false, "error": error.to_string() }))
        }
        (Err(_), false) => Ok(()),
    };
    // A reader that has gone away wants no more; the exit status is for others.
    if let Err(error) = written.and_then(|()| out.flush())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(Failure::Stdout(error));
    }
    match probed {
        Err(error) if !args.json => Err(Failure::Sandbox(error.to_string())),
        Err(_) => Ok(ExitCode::FAILURE),
        Ok(_) => Ok(ExitCode::SUCCESS),
    }
}
