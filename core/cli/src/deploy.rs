//! `deploy`, `ls`, `describe`, `rollback`, `remove`, `lift-ban`: what an operator asks of a node that serves.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use microfaas_node::{
    AdminAnswer, AdminRequest, Deployed, FunctionDescription, ModuleChange, ModuleInfo, Outcome, administrate,
};
use serde::Serialize;

use crate::args::{AtNode, OfModule, PathToDeploy};
use crate::failure::Failure;
use crate::{launch, progress};

/// Characters of a digest that tell images apart.
const DIGEST_CHARS: usize = 12;

pub(crate) fn deploy(args: &PathToDeploy) -> Result<(), Failure> {
    let path = absolute(&args.path)?;
    show_deployed(&args.node, &AdminRequest::Deploy { path })
}

pub(crate) fn rollback(args: &OfModule) -> Result<(), Failure> {
    show_deployed(&args.node, &AdminRequest::Rollback { name: args.name.clone() })
}

pub(crate) fn remove(args: &OfModule) -> Result<(), Failure> {
    show_deployed(&args.node, &AdminRequest::Remove { name: args.name.clone() })
}

pub(crate) fn describe(args: &OfModule) -> Result<(), Failure> {
    let request = AdminRequest::Describe { name: args.name.clone() };
    let AdminAnswer::Function(described) = ask_of(args, &request)? else { return Err(Failure::OddAnswer) };
    if args.node.json { print_json(&described) } else { print(&description(&described)) }
}

/// Lifting what is not banned changes nothing, and is said.
pub(crate) fn lift_ban(args: &OfModule) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Lifted<'a> {
        function: &'a str,
        lifted: bool,
    }
    let request = AdminRequest::LiftBan { name: args.name.clone() };
    let AdminAnswer::Lifted(lifted) = ask_of(args, &request)? else { return Err(Failure::OddAnswer) };
    let function = args.name.as_str();
    match args.node.json {
        true => print_json(&Lifted { function, lifted }),
        false if lifted => print(&format!("{function} may be called again\n")),
        false => print(&format!("{function} was not banned\n")),
    }
}

pub(crate) fn ls(node: &AtNode) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct List {
        modules: Vec<ModuleInfo>,
    }
    let mut list = List { modules: Vec::new() };
    loop {
        let after = list.modules.last().map(|module| module.name.clone());
        let request = AdminRequest::List { after };
        let AdminAnswer::Modules { modules, more } = ask(node, &request)? else {
            return Err(Failure::OddAnswer);
        };
        let is_last = !more || modules.is_empty();
        list.modules.extend(modules);
        if is_last {
            break;
        }
    }
    if node.json { print_json(&list) } else { print(&table(&list.modules)) }
}

/// The node reads the file itself, from its own directory. A module is known by the name that it has here, also where that is a link to another.
fn absolute(path: &Path) -> Result<String, Failure> {
    let read = |source| Failure::Data { file: path.to_owned(), source };
    path.metadata().map_err(read)?;
    let whole = std::path::absolute(path).map_err(read)?;
    let odd = |_| read(std::io::Error::other("its path is not UTF-8"));
    whole.into_os_string().into_string().map_err(odd)
}

fn ask(node: &AtNode, request: &AdminRequest) -> Result<AdminAnswer, Failure> {
    let socket = socket(node.socket.as_deref(), node.config.as_deref())?;
    // Workers that load a module may take their time.
    progress::begin("waiting for the node");
    let answer = administrate(&socket, request);
    progress::end();
    match answer? {
        AdminAnswer::Refused { reason } => Err(Failure::Refused(reason)),
        answer => Ok(answer),
    }
}

/// Asks something of a function that may not be there.
fn ask_of(args: &OfModule, request: &AdminRequest) -> Result<AdminAnswer, Failure> {
    ask(&args.node, request).map_err(|failure| match failure {
        Failure::Refused(reason) if reason.contains(&format!("`{}`", args.name)) => Failure::Unknown(reason),
        other => other,
    })
}

/// Where the node is: what was given, or else what the settings say.
pub(crate) fn socket(given: Option<&Path>, settings: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(socket) = given {
        return Ok(socket.to_owned());
    }
    let settings = launch::read_settings(settings)?;
    settings.socket.map(|socket| socket.path).ok_or(Failure::NoSocket)
}

fn show_deployed(node: &AtNode, request: &AdminRequest) -> Result<(), Failure> {
    let AdminAnswer::Deployed(done) = ask(node, request)? else { return Err(Failure::OddAnswer) };
    if node.json { print_json(&done) } else { print(&changes(&done)) }
}

fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| Failure::Stdout(error.into()))?;
    print(&format!("{text}\n"))
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Stdout)
}

fn short(digest: &str) -> &str {
    digest.get(..DIGEST_CHARS).unwrap_or(digest)
}

fn count(functions: usize) -> String {
    format!("{functions} function{}", if functions == 1 { "" } else { "s" })
}

fn changes(done: &Deployed) -> String {
    let mut text: String = done.modules.iter().map(change).collect();
    if done.omitted > 0 {
        text.push_str(&format!("and {} others\n", done.omitted));
    }
    text
}

fn change(change: &ModuleChange) -> String {
    let ModuleChange { module, outcome, digest, before, functions } = change;
    let what = match outcome {
        Outcome::New => "new",
        Outcome::Replaced => "replaced",
        Outcome::Unchanged => "unchanged",
        Outcome::Removed => "removed",
    };
    let digest = digest.as_ref().or(before.as_ref()).map_or("", |digest| short(digest));
    let was = match (outcome, before) {
        (Outcome::Replaced, Some(before)) => format!(", was {}", short(before)),
        _ => String::new(),
    };
    format!("{what:<10}{module}  {digest}  {}{was}\n", count(*functions))
}

fn table(modules: &[ModuleInfo]) -> String {
    let width = modules.iter().map(|module| module.name.chars().count()).chain([6]).max().unwrap_or(6);
    let mut text = format!(
        "{:<width$}  {:<DIGEST_CHARS$}  {:>10}  {:<20}  {:>7}  FUNCTIONS\n",
        "MODULE", "DIGEST", "BYTES", "SINCE", "LOADED"
    );
    for module in modules {
        let ModuleInfo { name, bytes, functions, .. } = module;
        let (digest, since) = (short(&module.digest), time(module.deployed_ms));
        let loaded = format!("{}/{}", module.loaded_in, module.workers);
        text.push_str(&format!(
            "{name:<width$}  {digest}  {bytes:>10}  {since:<20}  {loaded:>7}  {}\n",
            functions.join(" ")
        ));
    }
    text
}

fn time(ms: u64) -> String {
    let time: SystemTime = UNIX_EPOCH + Duration::from_millis(ms);
    humantime::format_rfc3339_seconds(time).to_string()
}

fn description(described: &FunctionDescription) -> String {
    let FunctionDescription { name, id, idempotent, limits, module, .. } = described;
    let duration = |ns| humantime::format_duration(Duration::from_nanos(ns)).to_string();
    let deadline = described.deadline_ns.map_or_else(|| "none".to_owned(), duration);
    let policy = format!("{:?}", limits.policy).to_lowercase();
    let concurrency = match described.concurrency {
        0 => "no limit".to_owned(),
        calls => format!("{calls} of each host"),
    };
    let mut rows = vec![
        ("function", name.clone()),
        ("number", id.to_string()),
        ("deadline", deadline),
        ("quantum", duration(limits.quantum_ns)),
        ("budget", duration(limits.budget_ns)),
        ("policy", policy),
        ("stateful", limits.stateful.to_string()),
        ("idempotent", idempotent.to_string()),
        ("concurrency", concurrency),
        ("module", module.name.clone()),
        ("path", module.path.clone()),
        ("digest", module.digest.clone()),
        ("bytes", module.bytes.to_string()),
        ("since", time(module.deployed_ms)),
        ("load", module.load.name().to_owned()),
        ("loaded", format!("in {} of {} workers", module.loaded_in, module.workers)),
        (
            "beside",
            module.functions.iter().filter(|other| *other != name).cloned().collect::<Vec<_>>().join(" "),
        ),
    ];
    rows.extend(described.banned.clone().map(|cause| ("banned", cause)));
    rows.extend(module.previous.clone().map(|previous| ("before", previous)));
    rows.iter().map(|(key, value)| format!("{key:<12}{value}\n")).collect()
}
