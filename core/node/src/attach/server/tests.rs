//! Hosts and workers played step by step.

use microfaas_control::attach::VERSION;
use microfaas_control::{ToNode, ToWorker};
use microfaas_sys::local;

use super::guests::GREET_WITHIN;
use super::*;
use crate::attach::SocketConfig;
use crate::attach::bulletin::Cut;
use crate::attach::guest::{GuestLane, Progress, Stage};
use crate::command::Command;
use crate::hub::Hub;
use crate::seat::Seat;

#[test]
fn a_panic_ends_all_connections_and_takes_their_lanes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (shared, inbox) = Shared::new([Seat::new(0, None)].into(), Arc::new(Hub::new(0).unwrap()));
    let terms = Terms { geometry: Geometry::default(), spin_ns: 0, stall_ns: 0, hosts_max: 1 };
    let door = Door::open(&SocketConfig::new(&path)).unwrap();
    let mut server = Server::new(Arc::clone(&shared), terms, door).unwrap();
    let host = local::connect(&path).unwrap();
    server.let_in();
    let number = *server.guests.keys().next().unwrap();
    server.greet(number, VERSION, true).unwrap();
    let lane = GuestLane { worker: 0, generation: 0, number: 1, progress: Progress::Open };
    server.guests.get_mut(&number).unwrap().lanes.insert(7, lane);
    assert!(shared.bulletin.has_guests());
    let thread = std::thread::spawn(move || {
        let _server = server;
        std::panic::resume_unwind(Box::new("a bug"));
    });
    assert!(thread.join().is_err());
    assert!(!shared.bulletin.has_guests() && !path.exists());
    let asked = inbox.try_recv().unwrap();
    let Command::Ask { worker: 0, question, .. } = asked else { panic!("{asked:?}") };
    assert_eq!(question.message, ToWorker::RemoveLane { lane: 1 });
    // What it was told, and then the end.
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    while microfaas_sys::socket::recv(host.as_fd(), &mut buffer, 1, None).unwrap().len > 0 {}
}

fn guest(stall_ns: u64) -> (tempfile::TempDir, Server, OwnedFd, u64) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (shared, _) = Shared::new([Seat::new(0, None)].into(), Arc::new(Hub::new(0).unwrap()));
    let terms = Terms { geometry: Geometry::default(), spin_ns: 0, stall_ns, hosts_max: 1 };
    let door = Door::open(&SocketConfig::new(&path)).unwrap();
    let mut server = Server::new(shared, terms, door).unwrap();
    let host = local::connect(&path).unwrap();
    server.let_in();
    let number = *server.guests.keys().next().unwrap();
    (folder, server, host, number)
}

#[test]
fn no_host_is_let_in_when_the_door_is_closed() {
    let (_folder, mut server, _host, number) = guest(0);
    server.door = None;
    assert!(server.greet(number, VERSION, true).is_err_and(|reason| reason.is_some()));
    assert!(!server.shared.bulletin.has_guests());
}

#[test]
fn nobody_is_shown_out_for_the_time_in_which_the_node_stood_still() {
    let (_folder, mut server, _host, number) = guest(3_600_000_000_000);
    let past = Instant::now() - GREET_WITHIN;
    server.guests.get_mut(&number).unwrap().stage = Stage::Greeting(past);
    // It was to be awake two hours ago.
    server.lapse = Lapse::new(Duration::from_secs(3600), Instant::now() - Duration::from_secs(7200));
    server.look_at_limits();
    assert!(server.guests.contains_key(&number));
    server.guests.get_mut(&number).unwrap().stage = Stage::Greeting(past);
    server.look_at_limits();
    assert!(server.guests.is_empty(), "as ever");
}

/// The worker has said that it has the lane, and that it has cut it, between two looks. The host has written nonsense before it was told that the lane is open.
#[test]
fn a_lane_that_is_cut_as_soon_as_it_is_there_is_the_hosts_fault() {
    let (_folder, mut server, _host, number) = guest(0);
    server.greet(number, VERSION, true).unwrap();
    let lane = GuestLane { worker: 0, generation: 0, number: 1, progress: Progress::Adding };
    server.guests.get_mut(&number).unwrap().lanes.insert(7, lane);
    let (to, answer) = std::sync::mpsc::sync_channel(1);
    let purpose = Purpose::Add { guest: number, lane: 7 };
    server.asks.push(Ask { pending: Pending::of(answer), purpose, worker: 0, generation: 0, number: 1 });
    server.look_at_answers();
    to.send(Ok(crate::command::Answer { message: ToNode::LaneAdded { lane: 1 }, generation: 0 })).unwrap();
    let cut = Cut { worker: 0, generation: 0, number: 1, reason: "nonsense".to_owned() };
    assert!(server.shared.bulletin.cut(cut));
    server.look_at_cuts();
    let guest = &server.guests[&number];
    assert_eq!((guest.lanes.len(), guest.shunned.as_slice()), (0, [(0, 0)].as_slice()), "the worker is not");
}

#[test]
fn a_lane_stays_where_the_worker_may_only_just_have_woken() {
    let (_folder, mut server, _host, number) = guest(0);
    server.greet(number, VERSION, true).unwrap();
    let lane = GuestLane { worker: 0, generation: 0, number: 1, progress: Progress::Open };
    server.guests.get_mut(&number).unwrap().lanes.insert(7, lane);
    let pong = |server: &mut Server| {
        let (to, answer) = std::sync::mpsc::sync_channel(1);
        to.send(Ok(crate::command::Answer { message: ToNode::Pong, generation: 0 })).unwrap();
        let purpose = Purpose::Ping { guest: number, lane: 7 };
        let pending = Pending::of(answer);
        server.asks.push(Ask { pending, purpose, worker: 0, generation: 0, number: 1 });
        server.look_at_answers();
        server.guests[&number].lanes.contains_key(&7)
    };
    server.shared.bulletin.forgive(Duration::from_secs(3600));
    assert!(pong(&mut server));
    server.shared.bulletin.forgive(Duration::ZERO);
    assert!(!pong(&mut server), "it has lost the call");
}

/// Its calls were cancelled and not lost, which is all that they are told.
#[test]
fn hosts_of_a_node_that_ends_at_once_are_told_that_it_does() {
    let (_folder, mut server, host, number) = guest(0);
    server.greet(number, VERSION, true).unwrap();
    // Both before the server's thread runs again.
    server.shared.closed.store(true, std::sync::atomic::Ordering::Relaxed);
    server.shared.bulletin.end();
    server.run();
    let (mut buffer, mut last) = (vec![0; PACKET_BYTES_MAX], None);
    loop {
        let packet = microfaas_sys::socket::recv(host.as_fd(), &mut buffer, 1, None).unwrap();
        if packet.len == 0 {
            break;
        }
        last = Some(microfaas_control::decode::<ToHost>(&buffer[..packet.len]).unwrap());
    }
    assert_eq!(last, Some(ToHost::Closing));
}
