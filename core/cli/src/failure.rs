//! What ends the command early: one line, and an exit status.

use std::io::{Error, ErrorKind, Write, stderr};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anstream::AutoStream;
use microfaas_build::BuildError;
use microfaas_http::GatewayError;
use microfaas_node::{
    ConnectError, DeployError, LaunchError, NodeError, SocketError, WORKER_PROGRAM, WORKER_VARIABLE,
};
use thiserror::Error;

use crate::config::ConfigError;
use crate::log;

/// Something failed while running, or a call did not end with OK.
pub(crate) const FAILED: u8 = 1;
/// The command line is wrong; clap uses the same.
pub(crate) const USAGE: u8 = 2;
/// A setting, module or crate is wrong.
pub(crate) const WRONG_INPUT: u8 = 3;

/// Bytes that the path of a socket may have: `sun_path` less the zero at its end (`unix(7)`).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Why the command ends.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(
        "no modules: there is no directory `modules` here and none was given; use --modules DIR or `modules` in [node] of microfaas.toml"
    )]
    NoModules,
    #[error("{0}{hint}", hint = node_hint(.0))]
    Node(#[from] NodeError),
    #[error("{source}{}", way_in(source))]
    Connect {
        #[from]
        source: ConnectError,
    },
    #[error(transparent)]
    Deploy(#[from] DeployError),
    #[error(
        "no socket: none was given, and the settings have none; use --socket PATH, or [socket] of microfaas.toml"
    )]
    NoSocket,
    #[error("refused, nothing was changed: {0}")]
    Refused(String),
    #[error("{0}; `microfaas ls` lists what there is")]
    Unknown(String),
    #[error("the node gave an answer that does not belong there; is it of this version?")]
    OddAnswer,
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("{source}{}", hint(source))]
    Gateway {
        #[from]
        source: GatewayError,
    },
    #[error("{}: cannot read it: {source}", file.display())]
    Data { file: PathBuf, source: Error },
    #[error("cannot read the standard input: {0}")]
    Stdin(Error),
    #[error("cannot write to the standard output: {0}")]
    Stdout(Error),
    #[error("`top` needs a terminal; `microfaas stats` prints the same once")]
    NoTerminal,
    #[error("the terminal cannot be used: {0}")]
    Terminal(Error),
    #[error("ended by signal {signal} before it was ready")]
    Interrupted { signal: i32 },
    #[error(
        "the node has ended by itself, which is a bug; the log says more, and the service manager, if there is one, starts it again"
    )]
    NodeOver,
    #[error("cannot start the runtime: {0}")]
    Runtime(Error),
    #[error("no worker can start here: {0}; SECURITY.md says what each layer of the sandbox needs")]
    Sandbox(String),
    #[error("no benchmark is named `{name}`; there are: {names}")]
    UnknownBench { name: String, names: String },
    #[error("{0}")]
    BenchUsage(&'static str),
    #[error("{0}")]
    Bench(String),
}

fn hint(error: &GatewayError) -> &'static str {
    match error {
        GatewayError::Bind { .. } => "; use another --http ADDR",
        _ => "",
    }
}

/// What to do about a node that cannot be reached.
fn way_in(error: &ConnectError) -> String {
    match error {
        ConnectError::NoNode { path, source } => too_long(path, source).unwrap_or_else(|| {
            match path.symlink_metadata().is_ok_and(|file| !file.file_type().is_socket()) {
                true => "; that file is no socket".to_owned(),
                false => format!("; `microfaas serve --socket {}` starts one", path.display()),
            }
        }),
        ConnectError::Denied { .. } => {
            "; its own user and root may, others where [socket] of its settings has `mode` and `users`"
                .to_owned()
        }
        _ => String::new(),
    }
}

/// What to do about a socket that a node cannot listen at, and a program that is no worker of this one's.
fn node_hint(error: &NodeError) -> String {
    match error {
        NodeError::Socket(SocketError::System { path, source }) => {
            too_long(path, source).unwrap_or_else(|| match source.kind() {
                ErrorKind::NotFound => "; the directory that it is to be in must be there".to_owned(),
                _ => "; use another --socket PATH".to_owned(),
            })
        }
        NodeError::Socket(SocketError::Group { .. }) => "; the node's user must be in it, or root".to_owned(),
        NodeError::Socket(_) => "; use another --socket PATH".to_owned(),
        NodeError::Worker {
            source: LaunchError::Died(_) | LaunchError::Protocol { .. } | LaunchError::Socket(_),
            ..
        } => {
            format!(
                "; is `{WORKER_PROGRAM}` beside this program, or what {WORKER_VARIABLE} names, of the same build?"
            )
        }
        _ => String::new(),
    }
}

fn too_long(path: &Path, source: &Error) -> Option<String> {
    let bytes = path.as_os_str().len();
    (source.kind() == ErrorKind::InvalidFilename && bytes > SOCKET_PATH_BYTES_MAX).then(|| {
        format!("; the path of a socket has at most {SOCKET_PATH_BYTES_MAX} bytes, this one has {bytes}")
    })
}

impl Failure {
    fn exit_status(&self) -> u8 {
        match self {
            Self::UnknownBench { .. } | Self::BenchUsage(_) => USAGE,
            // As a shell reports a process that a signal has ended.
            Self::Interrupted { signal } => u8::try_from(128 + signal).unwrap_or(FAILED),
            Self::Config(_) | Self::NoModules | Self::NoSocket | Self::Build(_) | Self::Data { .. } => {
                WRONG_INPUT
            }
            Self::Node(error) if is_input(error) => WRONG_INPUT,
            _ => FAILED,
        }
    }
}

/// Whether the node was not started because of what it was given, not because of the machine.
fn is_input(error: &NodeError) -> bool {
    match error {
        NodeError::Directory { .. }
        | NodeError::Module { .. }
        | NodeError::DuplicateFunction { .. }
        | NodeError::NoFunctions { .. }
        | NodeError::UnknownFunction { .. }
        | NodeError::Modules(_)
        | NodeError::Range { .. }
        | NodeError::Geometry(_) => true,
        NodeError::Worker { source, .. } => matches!(source, LaunchError::LoadFailed { .. }),
        _ => false,
    }
}

/// Prints `error: …` as one line.
pub(crate) fn report(failure: &Failure) -> ExitCode {
    crate::progress::end();
    if matches!(failure, Failure::Stdout(error) if error.kind() == ErrorKind::BrokenPipe) {
        // Whoever read it has seen enough, as `head` has.
        return ExitCode::from(failure.exit_status());
    }
    if let Failure::Build(error) = failure
        && let Some(output) = error.cargo_output()
    {
        say(output);
    }
    let line = failure.to_string().lines().collect::<Vec<_>>().join(" ");
    error_line(&line);
    ExitCode::from(failure.exit_status())
}

/// `error: …` on the standard error, in colour on a terminal.
pub(crate) fn error_line(text: &str) {
    let red = anstyle::AnsiColor::Red.on_default().bold();
    say(&format!("{red}error{red:#}: {text}\n"));
}

/// By way of the log where there is one: its thread may hold the standard error, and wait for a reader for ever.
fn say(text: &str) {
    let mut styled = AutoStream::new(Vec::new(), AutoStream::choice(&stderr()));
    let _ = styled.write_all(text.as_bytes());
    let text = styled.into_inner();
    if !log::say(&text) {
        // Who closed our standard error does not want to know.
        let _ = stderr().write_all(&text);
    }
}
