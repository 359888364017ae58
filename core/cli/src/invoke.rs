//! `invoke`: one call, from the command line.

use std::fs;
use std::io::{Read, Write, stdin};
use std::process::ExitCode;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use microfaas_node::{Completion, Node, Request, Status};
use serde::Serialize;

use crate::args::Invoke;
use crate::config::suggest;
use crate::failure::{FAILED, Failure, error_line};
use crate::launch;

/// For the worker to end once the call is answered.
const NODE_STOP: Duration = Duration::from_secs(2);

/// What `--json` prints, in this order.
#[derive(Debug, Serialize)]
struct Report<'a> {
    function: &'a str,
    status: &'static str,
    /// Null where no worker ever had the call.
    worker: Option<u32>,
    cpu_ns: u64,
    total_ns: u64,
    detail: &'a str,
    body_base64: String,
    meta: Vec<(&'a str, &'a str)>,
}

pub(crate) fn run(args: &Invoke) -> Result<ExitCode, Failure> {
    let body = body(args)?;
    let node = match &args.socket {
        Some(socket) => Node::connect(socket)?,
        None => {
            let mut settings = launch::settings(&args.sources)?;
            settings.node.workers = Some(1);
            settings.socket = None;
            launch::node(&settings)?
        }
    };
    let completion = call(&node, args, &body);
    node.shutdown(NODE_STOP);
    print(args, &completion).map_err(Failure::Stdout)?;
    Ok(if completion.status == Status::Ok { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn body(args: &Invoke) -> Result<Vec<u8>, Failure> {
    if args.stdin.is_some() {
        let mut body = Vec::new();
        stdin().lock().read_to_end(&mut body).map_err(Failure::Stdin)?;
        return Ok(body);
    }
    match &args.data_file {
        Some(file) => fs::read(file).map_err(|source| Failure::Data { file: file.clone(), source }),
        None => Ok(args.data.clone().unwrap_or_default().into_bytes()),
    }
}

fn call(node: &Node, args: &Invoke, body: &[u8]) -> Completion {
    let meta: Vec<(&str, &str)> = args.meta.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let mut completion =
        node.call(args.name.as_str(), Request { body, meta: &meta, deadline: args.deadline });
    if completion.status == Status::NotFound {
        completion.detail = format!("no function is named `{}`", args.name).into();
        let functions = node.functions();
        let known = functions.iter().map(|function| function.name.as_str());
        if let Some(similar) = suggest(&args.name, known) {
            completion.detail = format!("{}, did you mean `{similar}`?", completion.detail).into();
        }
    }
    completion
}

fn print(args: &Invoke, completion: &Completion) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if args.json {
        let report = Report {
            function: &args.name,
            status: completion.status.name(),
            worker: completion.worker,
            cpu_ns: completion.cpu_ns,
            total_ns: completion.total_ns,
            detail: &completion.detail,
            body_base64: STANDARD.encode(&completion.body),
            meta: completion.meta.iter().collect(),
        };
        serde_json::to_writer(&mut out, &report)?;
        out.write_all(b"\n")?;
    } else if completion.status == Status::Ok {
        out.write_all(&completion.body)?;
    } else {
        let detail = completion.detail.lines().collect::<Vec<_>>().join(" ");
        error_line(&format!("{}: {}: {detail}", args.name, completion.status));
    }
    out.flush()
}
