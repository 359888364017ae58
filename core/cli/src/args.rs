//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

use microfaas_node::BUILD;
use microfaas_node::message::check_pair;

use crate::bench;
use crate::config::check_address;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const EXIT_STATUS: &str = "\
Exit status:
  0  all is well; of `invoke`: the call ended with OK
  1  the call ended otherwise, or something failed while running
  2  the command line is wrong
  3  a setting, a module, a function crate or an input file is wrong; nothing was started
  128 plus its number (SIGINT: 130, SIGTERM: 143): of `serve`, a signal before it was ready, or the second one

Examples:
  microfaas new hello && microfaas build hello -o modules
  microfaas invoke hello --data world
  microfaas serve --http 127.0.0.1:8080
  curl http://127.0.0.1:8080/fn/hello -d world";

/// Functions in safe Rust, called over shared memory, on one machine
///
/// A function is a small Rust crate without `unsafe`. `build` makes a module of it, a shared library. A node loads modules into
/// worker processes, one per core, and hands them calls through shared memory: from a program, from this command, or over HTTP.
#[derive(Debug, Parser)]
#[command(name = "microfaas", version = BUILD, after_help = EXIT_STATUS, styles = STYLES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a function crate to start from
    ///
    /// DIR gets a Cargo.toml, a function and a test of it; `cargo test` in it works at once.
    New(New),
    /// Build modules from function crates
    ///
    /// Refuses a crate that does not have `#![forbid(unsafe_code)]` or has `unsafe` in its own code. Writes OUT/NAME.so for each
    /// crate, all of them or none.
    Build(Build),
    /// Serve functions over HTTP, and to other processes
    ///
    /// Starts the workers, loads the modules, and answers on /fn/NAME, on the routes of the configuration, and on /healthz. With a socket, other processes can
    /// attach and share the workers; then it listens for HTTP only where it is told an address. Prints `ready` when it takes requests. SIGHUP reads the settings of
    /// functions and the modules again: what has changed is deployed, what is gone is removed, all of it or nothing. The list of who may attach is read, too;
    /// other settings hold after a restart, and those that have changed are logged. SIGINT or SIGTERM
    /// let calls in flight finish, over HTTP and of attached hosts, for as long as the settings allow, and then end it with 0; a second one ends it at once, and so does one before `ready`.
    ///
    /// Flags win over the configuration, of which core/cli/microfaas.example.toml explains every key.
    Serve(Serve),
    /// Call one function and print its answer
    ///
    /// Starts a node with one worker for this call, or attaches to the one that listens at a socket. The body of the answer goes to the standard output as it is; if the call does
    /// not end with OK, one line on the standard error says how it ended. With --json, one object says both.
    #[command(after_help = INVOKE_HELP)]
    Invoke(Invoke),
    /// Print what the calls of a node have used
    ///
    /// Calls by status, CPU time, bytes and latencies of each function since the node was started, its workers, and the hosts that are attached, with what they say became of
    /// calls that no worker had. The CPU time is that of the calls, not of the workers' lives; SLOTS are those that the node's own calls have, which come over HTTP. With --json, one object has all of it, histograms included, and what each worker has had of each function; times are in nanoseconds.
    /// Only the node's own user and root may ask.
    #[command(after_help = STATS_HELP)]
    Stats(Stats),
    /// Watch a node: functions by CPU time, workers, rates; q quits
    ///
    /// Looks once a second at what `stats` prints, and shows the difference. Needs a terminal. Only the node's own user and root may ask.
    Top(Top),
    /// Deploy a module, or every module of a directory, at a node that serves
    ///
    /// All of them or none. A module is known by its file's name: one that is there is replaced, others stay. New calls get the new version at once, calls that
    /// run end on the old one. What cannot be loaded, or fails in its `init`, is refused, and nothing changes. What is deployed holds until the node is restarted or reads its
    /// settings again (SIGHUP): then what is in its directories of modules does, so put the file there, too.
    #[command(after_help = NODE_HELP)]
    Deploy(PathToDeploy),
    /// List the modules of a node that serves
    ///
    /// For each its digest, its size, since when it is deployed, in how many workers it is loaded, and its functions.
    Ls(AtNode),
    /// Describe a function of a node that serves
    ///
    /// NAME is the function. Its limits and deadline, its module and the one before, where it is loaded, and why it is banned, if it is.
    Describe(OfModule),
    /// Bring back the image that a module had before
    ///
    /// NAME is the module's file name, with `.so` or without, or one of its functions. Done twice, it is as if it was not done. A module that was removed comes back.
    Rollback(OfModule),
    /// Take a module away from a node that serves
    ///
    /// NAME as for `rollback`. New calls of its functions are NOT_FOUND, calls that run end as ever.
    Remove(OfModule),
    /// Let a banned function be called again, at a node that serves
    ///
    /// NAME is the function. A ban that its module has for breaking memory safety is lifted for the whole module. `describe` says why a function is banned.
    LiftBan(OfModule),
    /// Say what this machine grants to a worker's sandbox
    ///
    /// Tries every layer in a child process, as this user. A layer that the kernel refuses is named with its reason; a worker starts without it, unless it
    /// is mandatory. Exits with 0 if workers can start here, with 1 if not.
    Doctor(Doctor),
    /// Measure, and print a table or JSON
    #[command(after_help = bench::HELP)]
    Bench(bench::Args),
}

const STATS_HELP: &str = "\
Examples:
  microfaas stats --socket /run/microfaas.sock
  microfaas stats --json | jq '.functions[] | {name, calls, cpu_ns}'";

const NODE_HELP: &str = "\
The node must serve at a socket, and be this user's own or root ask. It reads the file itself.

Examples:
  microfaas serve --socket /run/microfaas.sock &
  microfaas deploy modules/hello.so --socket /run/microfaas.sock
  microfaas ls --socket /run/microfaas.sock
  microfaas rollback hello --socket /run/microfaas.sock";

/// Which node, and how to print its answer.
#[derive(Debug, Args)]
pub(crate) struct AtNode {
    /// Socket of the node [default: that of the settings]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Settings of the node [default: microfaas.toml, if it is there]
    #[arg(short, long, value_name = "FILE", conflicts_with = "socket")]
    pub(crate) config: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PathToDeploy {
    /// Module, or directory of modules
    #[arg(value_name = "FILE|DIR")]
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) node: AtNode,
}

#[derive(Debug, Args)]
pub(crate) struct OfModule {
    /// Name of a function or of a module
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) node: AtNode,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    pub(crate) node: AtNode,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Socket of the node [default: that of the settings]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Settings of the node [default: microfaas.toml, if it is there]
    #[arg(short, long, value_name = "FILE", conflicts_with = "socket")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const INVOKE_HELP: &str = "\
Statuses:
  OK ERROR PANIC TIMEOUT EXPIRED CANCELLED OOM FAULT DENIED TOO_LARGE NOT_FOUND LOAD_FAILED BANNED OVERLOADED WORKER_LOST
  Only OK exits with 0, the others with 1.

Examples:
  microfaas invoke hello --data world
  microfaas invoke thumbnail --data-file photo.jpg --meta :path='/?w=64' > small.png
  cat page.md | microfaas invoke markdown - --deadline 50ms --json
  microfaas serve --socket /run/microfaas.sock & microfaas invoke hello --socket /run/microfaas.sock";

#[derive(Debug, Args)]
pub(crate) struct New {
    /// Directory to make; its last part is the crate's name
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// Function crates
    #[arg(required = true, value_name = "DIR")]
    pub(crate) dirs: Vec<PathBuf>,
    /// Directory for the modules; made if it is not there
    #[arg(short, long, value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// Compile quickly instead of well, with the checks of a debug build
    #[arg(long)]
    pub(crate) dev: bool,
    /// Where cargo compiles; crates that share one share their dependencies
    #[arg(long, value_name = "DIR")]
    pub(crate) target_dir: Option<PathBuf>,
    /// Show cargo's output
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// Address and port to listen on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(crate) http: Option<String>,
    /// Socket by which other processes attach; only this user and root may, unless the table "socket" of the settings says otherwise
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Worker processes, one core each
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) workers: Option<u32>,
    /// How the log on the standard error looks; RUST_LOG chooses what is in it [default: info]
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log: LogFormat,
}

/// Where functions and settings come from.
#[derive(Debug, Args)]
pub(crate) struct Sources {
    /// Settings [default: microfaas.toml, if it is there]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Directory of modules; may be given several times [default: those of the settings, else ./modules]
    #[arg(long, value_name = "DIR")]
    pub(crate) modules: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Invoke {
    /// Name of the function
    pub(crate) name: String,
    /// `-`: read the request's body from the standard input
    #[arg(value_name = "-", value_parser = ["-"], hide_possible_values = true, conflicts_with_all = ["data", "data_file"])]
    pub(crate) stdin: Option<String>,
    /// Body of the request
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) data: Option<String>,
    /// File with the body of the request
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    pub(crate) data_file: Option<PathBuf>,
    /// Metadata of the request, such as a header; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = meta)]
    pub(crate) meta: Vec<(String, String)>,
    /// How long to wait for the answer, such as 500ms or 2s [default: the function's own]
    #[arg(long, value_name = "TIME", value_parser = deadline)]
    pub(crate) deadline: Option<Duration>,
    /// Ask the node that serves at this socket
    #[arg(long, value_name = "PATH", conflicts_with_all = ["config", "modules"])]
    pub(crate) socket: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sources: Sources,
    /// Print one JSON object: function, status, worker, cpu_ns, total_ns, detail, body_base64, meta
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line to be read
    Text,
    /// An object a line
    Json,
}

fn address(text: &str) -> Result<String, String> {
    check_address(text).ok_or_else(|| "expected an address and port such as 127.0.0.1:8080".to_owned())
}

/// The first `=` splits.
fn meta(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    check_pair(key, value).map_err(|error| error.to_string())?;
    Ok((key.to_owned(), value.to_owned()))
}

fn deadline(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .ok()
        .filter(|d| !d.is_zero())
        .ok_or_else(|| "expected a time above zero such as 500ms or 2s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn one_body_only() {
        for both in
            [&["--data", "a", "--data-file", "f"][..], &["-", "--data", "a"], &["-", "--data-file", "f"]]
        {
            let args = ["microfaas", "invoke", "f"].iter().chain(both);
            assert!(Cli::try_parse_from(args).is_err(), "{both:?}");
        }
        assert!(Cli::try_parse_from(["microfaas", "invoke", "f", "-"]).is_ok());
        assert!(Cli::try_parse_from(["microfaas", "invoke", "f", "x"]).is_err());
        assert!(Cli::try_parse_from(["microfaas", "invoke", "f", "--data", "-1"]).is_ok());
    }

    #[test]
    fn values_are_checked() {
        assert_eq!(meta("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(meta("a").is_err() && meta("Upper=1").is_err());
        assert_eq!(deadline("500ms"), Ok(Duration::from_millis(500)));
        assert!(deadline("0s").is_err() && deadline("5").is_err());
        assert!(address("8080").is_err());
    }
}
