//! The stack that a call may use.
//!
//! Needs the worker's program: `cargo build -p microfaas-worker`.

use std::path::Path;
use std::time::Duration;

use microfaas_e2e::{Watchdog, attacks};
use microfaas_node::{Node, Status};

const LIMIT: Duration = Duration::from_secs(300);

/// Its body says how deep it goes: so many bytes at least, and at most twice as many and a half.
const FUNCTION: &str = "113_state_residue_stack";

#[test]
fn a_call_has_as_much_stack_as_is_configured_and_no_more() {
    let _watchdog = Watchdog::new(LIMIT);
    let cases = attacks::read_all(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../attacks")));
    let modules = attacks::build_cases(Path::new(env!("CARGO_TARGET_TMPDIR")), &cases);
    for (stack_bytes, fits, overflows) in [(64 << 10, 16 << 10, 80 << 10), (8 << 20, 2 << 20, 10 << 20)] {
        let node = Node::builder()
            .modules(&modules)
            .workers(1)
            .deadline_default(LIMIT)
            .stack_bytes(stack_bytes)
            .start()
            .unwrap();
        for round in 0..3 {
            let call = |depth: u64| node.call(FUNCTION, format!("put:{depth}:x").as_bytes());
            let deep = call(fits);
            assert_eq!(deep.status, Status::Ok, "{stack_bytes}, round {round}: {}", deep.detail);
            let deeper = call(overflows);
            assert_eq!((deeper.status, &*deeper.detail), (Status::Fault, "stack overflow"), "{stack_bytes}");
        }
        assert_eq!(node.workers()[0].restarts, 0, "the worker goes on");
    }
}
