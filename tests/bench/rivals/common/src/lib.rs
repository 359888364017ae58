//! What every rival shares, so that they differ in the transport alone: the command line, pinning, the peer process and
//! the watchdog over it, how a round trip is timed and checked, and the line that is printed.
//!
//! A rival calls [`run`] from `main` with two functions. The program starts itself a second time as the server, with the
//! descriptor that the client made as standard input; the server is killed when the client is done, and dies with it.

mod args;
mod measure;
mod peer;

use std::process::{ExitCode, Stdio};

pub use args::Args;
pub use measure::{Echo, Report};

/// Everything was as expected.
pub const EXIT_OK: u8 = 0;
/// A wrong answer, or the transport failed.
pub const EXIT_FAILED: u8 = 1;
/// The command line is wrong.
pub const EXIT_USAGE: u8 = 2;
/// The watchdog ended the process: it had run far longer than asked.
pub const EXIT_WATCHDOG: u8 = 3;
/// The server ended before the client was done.
pub const EXIT_PEER: u8 = 4;

/// What a rival is.
#[derive(Debug)]
pub struct Rival<C, S> {
    /// As in the report and in the binary's name, `rival-NAME`.
    pub name: &'static str,
    /// Largest payload that one message carries, in bytes.
    pub payload_max: usize,
    /// Makes the client's side, and what the server gets as standard input.
    pub client: C,
    /// Answers requests for ever, on its own core. `Err` is printed and ends the process.
    pub server: S,
    /// Removes what a killed server cannot; called when the server is gone.
    pub cleanup: fn(client_pid: u32),
}

/// `main` of a rival: reads the command line, plays the part it names, prints the report.
pub fn run<C, E, S>(rival: Rival<C, S>) -> ExitCode
where
    C: FnOnce(&Args) -> Result<(Stdio, Box<dyn FnOnce() -> Result<E, String>>), String>,
    E: Echo,
    S: FnOnce(&Args) -> Result<(), String>,
{
    let Rival { name, payload_max, client, server, cleanup } = rival;
    let args = match Args::parse(std::env::args().skip(1), payload_max) {
        Ok(args) => args,
        Err(why) => return fail(name, &why, EXIT_USAGE),
    };
    let outcome = match args.client_pid {
        Some(client_pid) => peer::be_server(&args, client_pid).and_then(|()| server(&args)),
        None => measured(name, &args, client, cleanup),
    };
    match outcome {
        Ok(()) => ExitCode::from(EXIT_OK),
        Err(why) => fail(name, &why, EXIT_FAILED),
    }
}

/// The client's part: start the server, measure, end the server, report.
fn measured<C, E>(name: &'static str, args: &Args, client: C, cleanup: fn(u32)) -> Result<(), String>
where
    C: FnOnce(&Args) -> Result<(Stdio, Box<dyn FnOnce() -> Result<E, String>>), String>,
    E: Echo,
{
    let outcome = client(args).and_then(|(stdin, connect)| {
        let server = peer::Server::start(name, args, stdin, cleanup)?;
        peer::pin(args.client_cpu)?;
        let report = connect().and_then(|mut echo| measure::measure(&mut echo, args));
        server.end();
        report
    });
    cleanup(std::process::id());
    let report = outcome?;
    println!("{}", report.json(name));
    Ok(())
}

fn fail(name: &str, why: &str, code: u8) -> ExitCode {
    eprintln!("rival-{name}: {why}");
    ExitCode::from(code)
}
