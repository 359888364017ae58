//! A host that forks in the middle of its calls.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use microfaas_node::{Node, Request};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, alarm, read};

use crate::ledger::GRACE;
use crate::raw::fork_and;
use crate::victim::until;

/// Children that stay, at most.
const STAY: usize = 3;
/// Children at a time that end.
const AT_ONCE: usize = 6;
const PAUSE: Duration = Duration::from_millis(3);
/// How long a child that calls has for that.
const CALLS_SECONDS: u32 = 1;

/// Forks until it is told that it is over, at least once. A child stays until the standard input ends, or ends, or shuts its copy of the node down, which returns and does nothing,
/// or calls with it, which must not reach the worker. `began` is called when there is one that stays. What does not hold.
///
/// # Errors
/// As `fork(2)`.
pub fn fork_until(is_over: &AtomicBool, node: &Node, began: impl FnOnce()) -> nix::Result<Vec<String>> {
    // Those that call may well end by a fault.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    // Its handle is made once in a process, which a child might find half done.
    let input = std::io::stdin();
    let stay = || while matches!(read(&input, &mut [0]), Ok(1..)) {};
    let mut staying = vec![fork_and(stay)?];
    began();
    let (mut ending, mut calling, mut problems, mut forks) = (Vec::new(), Vec::new(), Vec::new(), 0);
    while !is_over.load(Ordering::Relaxed) || forks < 4 {
        match forks % 4 {
            0 if staying.len() < STAY => staying.push(fork_and(stay)?),
            1 => ending.push(fork_and(|| {})?),
            2 => ending.push(fork_and(|| node.shutdown(Duration::ZERO))?),
            _ => calling.push(fork_and(|| call(node))?),
        }
        forks += 1;
        std::thread::sleep(PAUSE);
        if calling.len() > AT_ONCE {
            end(&mut calling);
        }
        if ending.len() > AT_ONCE {
            problems.extend(await_all(&mut ending));
        }
    }
    end(&mut calling);
    end(&mut staying);
    problems.extend(await_all(&mut ending));
    Ok(problems)
}

/// It may come upon a lock that a thread of its parent had, and its parent may end before it does.
fn call(node: &Node) {
    alarm::set(CALLS_SECONDS);
    for _ in 0..100 {
        if let Ok(call) = node.submit("answer", Request::new(b"a question of nobody")) {
            std::mem::forget(call);
        }
    }
}

/// Those may wait for what only a thread of their parent does.
fn end(children: &mut Vec<Pid>) {
    for child in children.drain(..) {
        let _ = kill(child, Signal::SIGKILL);
        let _ = waitpid(child, None);
    }
}

/// Those must end by themselves, and well.
fn await_all(children: &mut Vec<Pid>) -> Option<String> {
    let mut last = Ok(WaitStatus::StillAlive);
    let mut has_ended = |child: Pid| {
        until(GRACE, || {
            last = waitpid(child, Some(WaitPidFlag::WNOHANG));
            last != Ok(WaitStatus::StillAlive)
        });
        last == Ok(WaitStatus::Exited(child, 0))
    };
    let bad = children.iter().position(|child| !has_ended(*child));
    let problem = bad.map(|_| format!("a child that was to end: {last:?}"));
    children.drain(..bad.map_or(children.len(), |bad| bad + usize::from(last != Ok(WaitStatus::StillAlive))));
    end(children);
    problem
}
