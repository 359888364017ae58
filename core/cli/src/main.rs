//! The `microfaas` command.

mod args;
mod bench;
mod config;
mod deploy;
mod doctor;
mod failure;
mod invoke;
mod launch;
mod log;
mod make;
mod notify;
mod progress;
mod serve;
mod stats;
mod top;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};

fn main() -> ExitCode {
    // Where this is refused the process ends by the signal, as it would have.
    let _ = microfaas_sys::file_size::refuse_beyond_limit();
    let done = match Cli::parse().command {
        Command::New(args) => make::new(&args).map(|()| ExitCode::SUCCESS),
        Command::Build(args) => make::build(&args).map(|()| ExitCode::SUCCESS),
        Command::Serve(args) => serve::run(args).map(|()| ExitCode::SUCCESS),
        Command::Invoke(args) => invoke::run(&args),
        Command::Stats(args) => stats::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Top(args) => top::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Deploy(args) => deploy::deploy(&args).map(|()| ExitCode::SUCCESS),
        Command::Ls(args) => deploy::ls(&args).map(|()| ExitCode::SUCCESS),
        Command::Describe(args) => deploy::describe(&args).map(|()| ExitCode::SUCCESS),
        Command::Rollback(args) => deploy::rollback(&args).map(|()| ExitCode::SUCCESS),
        Command::LiftBan(args) => deploy::lift_ban(&args).map(|()| ExitCode::SUCCESS),
        Command::Remove(args) => deploy::remove(&args).map(|()| ExitCode::SUCCESS),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bench(args) => Ok(bench::run(&args)),
    };
    done.unwrap_or_else(|failure| failure::report(&failure))
}
