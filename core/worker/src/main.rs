//! The worker executable. A node starts it; it is of no use by hand.

use std::process::ExitCode;

use microfaas_control::BUILD;

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    if argument.as_deref() == Some("--version") {
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), "microfaas-worker {BUILD}");
        return ExitCode::SUCCESS;
    }
    // It may have been started by a descriptor, whose number nobody knows it by.
    let _ = std::fs::write("/proc/self/comm", env!("CARGO_BIN_NAME"));
    let socket = match microfaas_worker::control::inherited() {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!(
                "error: microfaas-worker is started by a node, with a control socket: {error}; use `microfaas serve`"
            );
            return ExitCode::from(2);
        }
    };
    match microfaas_worker::serve::serve(socket, argument.as_deref().unwrap_or("unknown")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.told {
                eprintln!("error: worker {}: {failure}", std::process::id());
            }
            ExitCode::FAILURE
        }
    }
}
