//! The worker executable. A node starts it; it is of no use by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|a| a == "--version") {
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), "microfaas-worker {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let socket = match microfaas_worker::control::inherited() {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!(
                "error: microfaas-worker is started by a node, with a control socket: {error}; use `microfaas serve`"
            );
            return ExitCode::from(2);
        }
    };
    match microfaas_worker::serve::serve(socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.told {
                eprintln!("error: worker {}: {failure}", std::process::id());
            }
            ExitCode::FAILURE
        }
    }
}
