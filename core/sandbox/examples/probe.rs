//! Prints what a worker's sandbox would consist of for the user that runs this.

#![expect(clippy::print_stdout, reason = "its purpose")]

use std::process::ExitCode;

use microfaas_control::sandbox::SandboxPolicy;

fn main() -> ExitCode {
    match microfaas_sandbox::probe(&SandboxPolicy::default()) {
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
