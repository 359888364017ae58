//! A host that means harm, in a process of its own: attaches to the socket that is its first argument and does what the second says, then ends.
//! What it has to say it prints as one line.
#![expect(clippy::print_stdout, reason = "answers whoever started it")]

use std::path::Path;
use std::time::{Duration, Instant};

use microfaas_control::attach::{Complaint, FromHost, ToHost};
use microfaas_e2e::raw_host::{RawHost, RawLane};
use microfaas_lane::layout::Region;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, socket, deed] = &arguments[..] else { panic!("a socket and a deed, not {arguments:?}") };
    let host = RawHost::attach(Path::new(socket));
    let mut host = host.unwrap_or_else(|error| panic!("{error}"));
    let said = match deed.as_str() {
        "mutate" => mutate(&mut host),
        "scribble" => scribble(&mut host),
        "flood" => flood(&mut host),
        "complain" => complain(&mut host),
        "block" => block(&mut host),
        "crash" => crash(&mut host),
        _ => panic!("what is `{deed}`?"),
    };
    println!("{said}");
}

/// Changes a request and its response while the function looks at them. What the function says.
fn mutate(host: &mut RawHost) -> String {
    let steady = host.function("steady");
    let mut said = Vec::new();
    for lane in &mut host.lanes {
        let start = Instant::now();
        let ticket = lane.submit(steady, &[1; 256]);
        let end = start + Duration::from_secs(60);
        let mut byte = 0u8;
        while Instant::now() < end {
            if let Some(outcome) = lane.outcome(ticket) {
                let body = lane.body(ticket, &outcome);
                said.push(format!("{} {}", outcome.status, String::from_utf8_lossy(&body)));
                break;
            }
            // Not all the time, so that the answer is not hit: the function takes a fifth of a second at least.
            if start.elapsed() < Duration::from_millis(100) {
                byte = byte.wrapping_add(1);
                overwrite(lane, ticket.slot, byte);
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
    said.join(";")
}

fn overwrite(lane: &RawLane, slot: u32, byte: u8) {
    let geometry = *lane.host.geometry();
    lane.fill(Region::Down, geometry.request_offset(slot), 256, byte);
    let response = geometry.response_offset(slot);
    lane.fill(Region::Up, response, 256, byte);
}

/// Writes all over its lanes, with calls on their way.
fn scribble(host: &mut RawHost) -> String {
    let spin = host.function("sleep_spin");
    for lane in &mut host.lanes {
        for _ in 0..8 {
            let _ = lane.submit(spin, b"20000");
        }
        for byte in [0xff, 0, 0x41, 0x80] {
            lane.scribble(Region::Up, 0, byte);
            lane.scribble(Region::Bulk, 0, byte);
            lane.scribble(Region::Down, 0, byte);
            lane.wake();
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    "scribbled".to_owned()
}

/// Submits without end, reads no answer, and rings all the time.
fn flood(host: &mut RawHost) -> String {
    let echo = host.function("echo");
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        for lane in &mut host.lanes {
            lane.resubmit(echo, 16);
            lane.wake();
        }
    }
    "flooded".to_owned()
}

/// Says of each lane that its worker lies and hangs, until both are taken back.
fn complain(host: &mut RawHost) -> String {
    let mut old: Vec<u64> = host.lanes.iter().map(|lane| lane.number).collect();
    for (lane, about) in old.iter().zip([Complaint::Violation, Complaint::Hangs]) {
        host.say(&FromHost::Complaint { lane: *lane, about }).unwrap_or_else(|error| panic!("{error}"));
    }
    while !old.is_empty() {
        match host.hear() {
            Ok((ToHost::Gone { lane, .. }, _)) => old.retain(|number| *number != lane),
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
    "taken back".to_owned()
}

/// Makes its eventfds blocking and full, and has them signalled for calls that end.
fn block(host: &mut RawHost) -> String {
    let echo = host.function("echo");
    for lane in &mut host.lanes {
        fcntl(&lane.event, FcntlArg::F_SETFL(OFlag::empty())).unwrap_or_else(|error| panic!("{error}"));
        nix::unistd::write(&lane.event, &(u64::MAX - 1).to_ne_bytes())
            .unwrap_or_else(|error| panic!("{error}"));
        for _ in 0..3 {
            lane.host.host_words().event_epoch.doze();
            let ticket = lane.submit(echo, b"x");
            while lane.outcome(ticket).is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    // While it lives the others' calls are to go on.
    std::thread::sleep(Duration::from_secs(1));
    "blocked".to_owned()
}

/// Has as many calls end in a fault as it can.
fn crash(host: &mut RawHost) -> String {
    let abort = host.function("abort");
    let end = Instant::now() + Duration::from_secs(1);
    while Instant::now() < end {
        for lane in &mut host.lanes {
            let tickets: Vec<_> = (0..64).map(|_| lane.submit(abort, b"")).collect();
            for ticket in tickets {
                while lane.outcome(ticket).is_none() {
                    std::thread::yield_now();
                }
                lane.host.release(ticket);
            }
        }
    }
    "crashed".to_owned()
}
