//! `cargo run -p microfaas-build --example build -- OUT DIR…`: builds modules without the command.

use std::path::PathBuf;
use std::process::ExitCode;

use microfaas_build::{BuildOptions, build};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let Some(out) = arguments.next() else {
        eprintln!("usage: build OUT DIR…");
        return ExitCode::FAILURE;
    };
    match build(&BuildOptions::new(arguments, out), &mut |line| eprintln!("{line}")) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}\n{}", error.cargo_output().unwrap_or_default());
            ExitCode::FAILURE
        }
    }
}
