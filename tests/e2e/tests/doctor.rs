//! `microfaas doctor`: what is in force is said, and what the kernel refuses, too.
//!
//! Needs the programs: `cargo build -p microfaas-cli --bins`.

use std::process::Command;
use std::time::Duration;

use microfaas_e2e::{Watchdog, program};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(300);

/// The answer of `microfaas doctor --json`, run by this command.
fn ask(command: &mut Command) -> Value {
    let output = command.output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {said}", output.status);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"))
}

/// Layers and their states. Each is there once, and what is not in force has a reason.
fn layers(answer: &Value) -> Vec<(String, Value)> {
    assert_eq!(answer["workers_can_start"], Value::Bool(true), "{answer}");
    let entries = answer["sandbox"]["entries"].as_array().expect("a list");
    let layers: Vec<(String, Value)> = entries
        .iter()
        .map(|entry| (entry["layer"].as_str().expect("a name").to_owned(), entry["state"].clone()))
        .collect();
    assert_eq!(layers.len(), 18, "{answer}");
    for (index, (name, state)) in layers.iter().enumerate() {
        assert!(layers[..index].iter().all(|(other, _)| other != name), "{name} twice");
        let reason = ["refused", "not_asked"].iter().find_map(|kind| state[kind].as_str());
        assert!(state == "active" || reason.is_some_and(|reason| !reason.is_empty()), "{name}: {state}");
    }
    layers
}

fn state<'a>(layers: &'a [(String, Value)], name: &str) -> &'a Value {
    &layers.iter().find(|(layer, _)| layer == name).unwrap_or_else(|| panic!("{name} is missing")).1
}

#[test]
fn what_is_in_force_is_said() {
    let _watchdog = Watchdog::new(LIMIT);
    let layers = layers(&ask(Command::new(program("microfaas")).args(["doctor", "--json"])));
    for mandatory in ["no_new_privileges", "descriptors", "capabilities", "death_signal", "system_calls"] {
        assert_eq!(state(&layers, mandatory), "active", "{mandatory}");
    }
}

/// In a user namespace that may change its own limits: there the kernel makes no further namespace of two kinds.
#[test]
fn what_the_kernel_refuses_is_said_with_its_reason() {
    let _watchdog = Watchdog::new(LIMIT);
    let script = "echo 0 > /proc/sys/user/max_net_namespaces && echo 0 > /proc/sys/user/max_uts_namespaces || exit 99; exec \"$0\" doctor --json";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-user=1000", "--keep-caps", "sh", "-c", script]).arg(program("microfaas"));
    let tried = command.output();
    let Ok(output) = tried else {
        eprintln!("skipped: there is no program `unshare`");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(99) || said.starts_with("unshare: ") {
        eprintln!("skipped: no user namespace whose limits can be changed: {said}");
        return;
    }
    let layers = layers(&ask(&mut command));
    for refused in ["net_namespace", "uts_namespace"] {
        let reason = state(&layers, refused)["refused"].as_str();
        assert!(reason.is_some_and(|reason| reason.contains("No space")), "{refused}: {reason:?}");
    }
    assert_eq!(state(&layers, "ipc_namespace"), "active", "the others are as they were");
}
