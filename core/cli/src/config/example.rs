//! That `microfaas.example.toml` is valid and explains every key.

use std::path::Path;

use microfaas_node::{HOSTS_MAX, Limits};

use super::tests::parse;
use super::{FunctionSettings, HttpSettings, NodeSettings, SocketSettings};

#[test]
fn the_example_is_valid_and_names_every_key() {
    let text = include_str!("../../microfaas.example.toml");
    let settings = parse(text).unwrap();
    assert_eq!(settings.node.modules, [Path::new("dir/modules")]);
    // Every key is explained, those that are commented out too.
    let uncommented: String = text
        .lines()
        .map(|line| line.strip_prefix("#~ ").unwrap_or(line))
        .flat_map(|line| [line, "\n"])
        .collect();
    let NodeSettings {
        modules,
        workers: Some(_),
        pin: Some(_),
        spin: Some(_),
        deadline: Some(_),
        stall: Some(_),
        stop_timeout: Some(_),
        heartbeat: Some(_),
        restarts: Some(_),
        spares: Some(_),
        slots_small: Some(_),
        slots_large: Some(_),
        small_bytes: Some(_),
        large_bytes: Some(_),
        response_bytes: Some(_),
        stack_bytes: Some(_),
        arena_bytes: Some(_),
        init_bytes: Some(_),
        suspended_max: Some(_),
        load: Some(_),
        modules_bytes_max: Some(_),
        modules_max: Some(_),
        ban_after: Some(_),
    } = parse(&uncommented).unwrap().node
    else {
        panic!("a key of [node] is not in the example");
    };
    assert_eq!(modules.len(), 1);
    let HttpSettings {
        listen: Some(_),
        threads: Some(_),
        body_limit: Some(_),
        bodies_limit: Some(_),
        responses_limit: Some(_),
        head_limit: Some(_),
        max_connections: Some(_),
        head_timeout: Some(_),
        body_timeout: Some(_),
        write_timeout: Some(_),
        stop_timeout: Some(_),
        max_deadline: Some(_),
        access_log: Some(_),
        metrics: Some(Some(_)),
        expose_panics: Some(_),
        routes,
    } = parse(&uncommented).unwrap().http
    else {
        panic!("a key of [http] is not in the example");
    };
    assert_eq!(routes.len(), 2);
    let Some(SocketSettings {
        path,
        mode: Some(0o660),
        group: Some(_),
        users,
        groups,
        hosts_max: Some(HOSTS_MAX),
    }) = parse(&uncommented).unwrap().socket
    else {
        panic!("a key of [socket] is not in the example");
    };
    assert_eq!(path, Path::new("dir/microfaas.sock"));
    assert!(!users.is_empty() && !groups.is_empty());
    let function = &parse(&uncommented).unwrap().functions[0];
    let FunctionSettings {
        name: _,
        line: _,
        deadline: Some(_),
        idempotent: Some(_),
        quantum: Some(_),
        budget: Some(_),
        policy: Some(_),
        stateful: Some(_),
        ban_after: Some(_),
        concurrency: Some(_),
        load: Some(_),
    } = function
    else {
        panic!("a key of [function] is not in the example");
    };
    assert_eq!(function.limits(), Limits::default(), "the example shows the defaults");
}
