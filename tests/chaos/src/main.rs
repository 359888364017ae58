//! The program `chaos`: runs experiments, each in a process of its own with a watchdog, and says what came of them.
#![expect(clippy::print_stdout, reason = "prints what came of the experiments")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use microfaas_chaos::experiments::{ALL, Experiment, find};
use microfaas_chaos::footprint::descendants;
use microfaas_chaos::ledger::Counts;
use microfaas_chaos::modules::{Modules, make, make_shim};
use microfaas_chaos::stage::HEAL;
use microfaas_chaos::trial::{Stop, Trial, Verdict};
use microfaas_chaos::victim::{Victim, until};
use microfaas_chaos::{log, place, role};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// Beyond its time, before an experiment counts as hung.
const PATIENCE: Duration = Duration::from_secs(90);

/// Kills, stops, starves and replaces, and checks that no call is lost, doubled or answered wrongly
///
/// Without --experiment all experiments run, one after the other. Each prints its seed, with which it can be run again. Exits with 1 where something does not hold.
#[derive(Debug, Parser)]
#[command(name = "chaos", args_conflicts_with_subcommands = true)]
struct Cli {
    /// Only these
    #[arg(long, value_name = "NAME")]
    experiment: Vec<String>,
    /// About how long each takes
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    seconds: f64,
    /// Chance of all experiments; by the clock where it is not given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// One line of JSON for each, and nothing else
    #[arg(long)]
    json: bool,
    /// Say what there is
    #[arg(long)]
    list: bool,
    /// In this process: the folder with the functions' modules
    #[arg(long, hide = true)]
    modules: Option<PathBuf>,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, clap::Subcommand)]
enum Role {
    /// A process that an experiment starts
    #[command(hide = true)]
    Role { arguments: Vec<String> },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    log::start();
    let done = match &cli.role {
        Some(Role::Role { arguments }) => role::play(arguments).map(|()| true),
        None if cli.list => {
            ALL.iter().for_each(|experiment| println!("{}  {}", experiment.name, experiment.about));
            Ok(true)
        }
        None => run(&cli),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(stop) => {
            eprintln!("chaos: {stop}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<bool, Stop> {
    let named = cli.experiment.iter().map(|name| {
        find(name).ok_or_else(|| Stop::Failed(format!("there is no experiment `{name}`; see --list")))
    });
    let mut experiments = named.collect::<Result<Vec<_>, _>>()?;
    if let (Some(modules), [experiment]) = (&cli.modules, &experiments[..]) {
        return here(cli, experiment, modules.clone());
    }
    if experiments.is_empty() {
        experiments = ALL.iter().collect();
    }
    let scratch = std::env::current_exe()?.with_file_name("chaos-modules");
    let modules = make(&scratch).map_err(|error| Stop::Failed(format!("modules: {error}")))?;
    make_shim(&modules)?;
    nix::sys::prctl::set_child_subreaper(true)?;
    let seed = cli.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let (mut counts, mut bad) = (Counts::default(), Vec::new());
    for experiment in &experiments {
        let verdict = apart(cli, experiment, &modules, seed);
        counts.add(verdict.counts);
        if !verdict.is_good() {
            bad.push(experiment.name);
        }
        if cli.json {
            println!("{}", serde_json::to_string(&verdict).map_err(std::io::Error::other)?);
        } else {
            print(experiment, &verdict);
        }
    }
    if !cli.json {
        let Counts { accepted, completed, lost, doubled, wrong, .. } = counts;
        println!("accepted {accepted}, completed {completed}, lost {lost}, doubled {doubled}, wrong {wrong}");
        println!("{} experiments, {} failed: {}", experiments.len(), bad.len(), bad.join(" "));
    }
    Ok(bad.is_empty())
}

/// Runs one in this process.
fn here(cli: &Cli, experiment: &Experiment, folder: PathBuf) -> Result<bool, Stop> {
    let (seed, time) = (cli.seed.unwrap_or(0), Duration::from_secs_f64(cli.seconds));
    let modules = Modules::read(&folder)?;
    let mut trial = Trial::new(experiment.name, seed, time, modules, folder);
    let outcome = match place::go(experiment.place, &trial.folder) {
        Ok(Some(mut there)) => return Ok(there.command.status()?.success()),
        Ok(None) => (experiment.run)(&mut trial),
        Err(stop) => Err(stop),
    };
    let verdict = trial.end(outcome);
    println!("{}", serde_json::to_string(&verdict).map_err(std::io::Error::other)?);
    Ok(verdict.is_good())
}

/// Runs one in a process of its own; nothing of it may be left afterwards.
fn apart(cli: &Cli, experiment: &Experiment, modules: &std::path::Path, seed: u64) -> Verdict {
    let mut verdict = spawn(cli, experiment, modules, seed).unwrap_or_else(|why| Verdict {
        experiment: experiment.name.to_owned(),
        seed,
        problems: vec![why],
        ..Verdict::default()
    });
    let reap =
        || while !matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Err(_) | Ok(WaitStatus::StillAlive)) {};
    // What was killed last may be on its way.
    until(HEAL, || {
        reap();
        descendants(std::process::id()).is_empty()
    });
    for (pid, state) in descendants(std::process::id()) {
        verdict.problems.push(format!("process {pid} ({state}) is left"));
        if let Ok(Some(orphan)) = Victim::open(pid) {
            let _ = orphan.kill();
            let _ = orphan.ends_within(PATIENCE);
        }
    }
    reap();
    verdict
}

fn spawn(
    cli: &Cli,
    experiment: &Experiment,
    modules: &std::path::Path,
    seed: u64,
) -> Result<Verdict, String> {
    let failed = |error: std::io::Error| format!("cannot run it: {error}");
    let mut child = Command::new(std::env::current_exe().map_err(failed)?)
        .args(["--experiment", experiment.name, "--seed", &seed.to_string()])
        .args(["--seconds", &cli.seconds.to_string(), "--modules"])
        .arg(modules)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let output = child.stdout.take().expect("its output is a pipe");
    let (said, line) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let last = BufReader::new(output).lines().map_while(Result::ok).last();
        let _ = said.send(last.unwrap_or_default());
    });
    let limit = Duration::from_secs_f64(cli.seconds) + PATIENCE;
    let start = Instant::now();
    let line = line.recv_timeout(limit);
    if line.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(failed)?;
    let line = line.map_err(|_| format!("it hangs: ended after {:?}", start.elapsed()))?;
    serde_json::from_str(&line).map_err(|_| format!("it ended with {status} and without a verdict"))
}

fn print(experiment: &Experiment, verdict: &Verdict) {
    let Verdict {
        experiment: name,
        seed,
        ms,
        skipped,
        problems,
        counts,
        figures,
        restarts,
        events,
        logged,
        ..
    } = verdict;
    let word = match (skipped, problems.is_empty()) {
        (Some(why), true) => format!("skip    {why}"),
        (_, true) => "ok".to_owned(),
        (_, false) => "FAILED".to_owned(),
    };
    println!("{name}  {:<70} {ms:>6} ms  seed {seed:<10}  {word}", experiment.about);
    if counts.accepted > 0 {
        let Counts { accepted, completed, ok, refused, .. } = counts;
        let mut line =
            format!("      accepted {accepted}, completed {completed}, ok {ok}, refused {refused}");
        for (key, value) in figures {
            line += &format!(", {key} {value:.1}");
        }
        for (cause, times) in restarts {
            line += &format!(", {cause} {times}");
        }
        line += &format!(", logged {logged} of {events} events");
        println!("{line}");
    }
    for problem in problems {
        println!("      {problem}");
    }
}
