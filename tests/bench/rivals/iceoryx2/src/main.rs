//! iceoryx2's request-response between two processes, both sides polling: what the best-known shared-memory middleware needs.
//!
//! One client, one server, one request at a time, loans without initialisation so that each payload is written once per
//! direction, as in a lane. Everything it puts into the file system or shared memory carries this run's name, and is removed
//! when the server is gone.

use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use iceoryx2::port::client::Client;
use iceoryx2::prelude::*;
use iceoryx2::response::Response;
use rival_common::{Args, Echo, Rival, run};

const PAYLOAD_MAX: usize = 16 << 20;

fn main() -> ExitCode {
    set_log_level(LogLevel::Fatal);
    run(Rival { name: "iceoryx2", payload_max: PAYLOAD_MAX, client, server, cleanup })
}

/// What every name of this run begins with.
fn prefix(client_pid: u32) -> String {
    format!("mfrival{client_pid}_")
}

/// The folder for everything of this run that is a file.
fn root(client_pid: u32) -> PathBuf {
    std::env::temp_dir().join(format!("{}iceoryx2", prefix(client_pid)))
}

fn config(client_pid: u32) -> Result<Config, String> {
    let mut config = Config::default();
    config.global.prefix =
        FileName::new(prefix(client_pid).as_bytes()).map_err(|e| format!("prefix: {e:?}"))?;
    let root = root(client_pid);
    let path =
        Path::new(root.as_os_str().as_encoded_bytes()).map_err(|e| format!("{}: {e:?}", root.display()))?;
    config.global.set_root_path(&path);
    Ok(config)
}

type Factory =
    iceoryx2::service::port_factory::request_response::PortFactory<ipc::Service, [u8], (), [u8], ()>;

/// Joins the run's service; the node must live as long as its ports.
fn open(client_pid: u32) -> Result<(Node<ipc::Service>, Factory), String> {
    let node = NodeBuilder::new().config(&config(client_pid)?).create::<ipc::Service>();
    let node = node.map_err(|e| format!("cannot make a node: {e}"))?;
    let name: ServiceName = "rival".try_into().map_err(|e| format!("service name: {e}"))?;
    let service = node
        .service_builder(&name)
        .request_response::<[u8], [u8]>()
        .max_clients(1)
        .max_servers(1)
        .max_nodes(2)
        .open_or_create()
        .map_err(|e| format!("cannot open the service: {e}"))?;
    Ok((node, service))
}

struct Polling {
    client: Client<ipc::Service, [u8], (), [u8], ()>,
    _node: Node<ipc::Service>,
}

/// The response in the server's memory.
struct Answer(Response<ipc::Service, [u8], ()>);

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        self.0.payload()
    }
}

impl Echo for Polling {
    type Answer<'a> = Answer;

    fn call(&mut self, request: &[u8]) -> Result<Answer, String> {
        let loan = self
            .client
            .loan_slice_uninit(request.len())
            .map_err(|e| format!("no memory for a request: {e}"))?;
        let pending =
            loan.write_from_slice(request).send().map_err(|e| format!("cannot send a request: {e}"))?;
        loop {
            match pending.receive() {
                Ok(Some(response)) => return Ok(Answer(response)),
                Ok(None) => std::hint::spin_loop(),
                Err(e) => return Err(format!("cannot receive the answer: {e}")),
            }
        }
    }
}

type Connect = Box<dyn FnOnce() -> Result<Polling, String>>;

fn client(args: &Args) -> Result<(Stdio, Connect), String> {
    let payload = args.payload;
    let connect = move || {
        let (node, service) = open(std::process::id())?;
        // Requests sent before the server has joined would be lost; the watchdog bounds the wait.
        while service.dynamic_config().number_of_servers() == 0 {
            std::hint::spin_loop();
        }
        let client = service.client_builder().initial_max_slice_len(payload.max(1)).create();
        let client = client.map_err(|e| format!("cannot make a client: {e}"))?;
        Ok(Polling { client, _node: node })
    };
    Ok((Stdio::null(), Box::new(connect)))
}

fn server(args: &Args) -> Result<(), String> {
    let client_pid = args.client_pid.ok_or("only a client starts the server")?;
    let (_node, service) = open(client_pid)?;
    let server = service.server_builder().initial_max_slice_len(args.payload.max(1)).create();
    let server = server.map_err(|e| format!("cannot make a server: {e}"))?;
    loop {
        let Some(request) = server.receive().map_err(|e| format!("cannot receive a request: {e}"))? else {
            std::hint::spin_loop();
            continue;
        };
        let len = request.payload().len();
        let loan = request.loan_slice_uninit(len).map_err(|e| format!("no memory for an answer: {e}"))?;
        loan.write_from_slice(request.payload()).send().map_err(|e| format!("cannot send an answer: {e}"))?;
    }
}

/// A killed server leaves its files and shared memory; all of them carry this run's name.
fn cleanup(client_pid: u32) {
    let prefix = prefix(client_pid);
    // Nothing to remove is no failure.
    let _ = std::fs::remove_dir_all(root(client_pid));
    let Ok(entries) = std::fs::read_dir("/dev/shm") else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
