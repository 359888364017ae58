//! What a host knows of its node without one.

use std::collections::BTreeMap;

use microfaas_control::encode;
use microfaas_lane::Status;
use microfaas_lane::layout::Geometry;
use microfaas_sys::socket;

use super::lanes::Held;
use super::*;
use crate::call::nanoseconds;
use crate::lapse::Lapse;
use crate::moves::tests::node;
use crate::{CallError, FunctionHandle};

/// As after a pause of the machine: neither the host's thread nor the worker has run.
#[test]
fn who_has_stood_still_complains_of_nobody_at_first() {
    let (_shared, mut lanes) = node(1);
    let (lane, mut worker) = lanes.remove(0);
    let (near, far) = socket::pair().unwrap();
    crate::moves::tests::submit_due(&lane, 1);
    worker.begin();
    let held = Held { lane, open: true, told: false, told_that_it_hangs: None };
    let stall = Duration::from_millis(200);
    let long_ago = Instant::now() - 10 * stall;
    let mut live = Live {
        socket: near,
        stall_ns: nanoseconds(stall),
        lapse: Lapse::new(stall, long_ago),
        lanes: BTreeMap::from([(1, held)]),
        closing: false,
    };
    let mut buffer = [0; 256];
    let mut complaints = |live: &mut Live| {
        let next = next_due(live);
        assert!(next < u64::MAX, "it looks again");
        socket::try_recv(far.as_fd(), &mut buffer, 0).is_ok()
    };
    live.lapse = Lapse::new(Duration::from_secs(3600), long_ago - Duration::from_secs(7200));
    assert!(live.lapse.wakes(Instant::now()));
    assert!(!complaints(&mut live), "in its grace");
    live.lapse = Lapse::new(stall, Instant::now());
    assert!(complaints(&mut live));
    live.lanes.get_mut(&1).unwrap().told_that_it_hangs = Some(long_ago);
    assert!(complaints(&mut live), "once more where nothing came of it");
}

/// As where this process is out of descriptors.
#[test]
fn who_starts_learns_at_once_why_no_lane_can_be_taken() {
    let (shared, _) = node(1);
    let (near, far) = socket::pair().unwrap();
    let offer = ToHost::Offer { lane: 1, worker: 0, geometry: Geometry::default() };
    socket::send(far.as_fd(), &encode(&offer).unwrap(), &[]).unwrap();
    let lapse = Lapse::new(Duration::ZERO, Instant::now());
    let live = Live { socket: near, stall_ns: 0, lapse, lanes: BTreeMap::new(), closing: false };
    let (started, outcome) = sync_channel(1);
    let mut attachment = Attachment {
        shared,
        path: PathBuf::new(),
        mirror: Mirror::default(),
        live: Some(live),
        pause: PAUSE_MIN,
        next_attempt: Instant::now(),
        started: Some(started),
    };
    attachment.listen().unwrap();
    assert!(matches!(outcome.try_recv(), Ok(Err(ConnectError::System { .. }))));
    let packet = socket::try_recv(far.as_fd(), &mut [0; 256], 0).unwrap();
    assert!(packet.len > 0, "the node is told, too");
}

#[test]
fn a_panic_answers_every_call() {
    let (shared, mut lanes) = node(1);
    let (lane, mut worker) = lanes.remove(0);
    shared.seats[0].open(Arc::clone(&lane));
    let (near, far) = socket::pair().unwrap();
    let held = Held { lane, open: true, told: false, told_that_it_hangs: None };
    let lapse = Lapse::new(Duration::ZERO, Instant::now());
    let lanes = BTreeMap::from([(1, held)]);
    let live = Live { socket: near, stall_ns: 0, lapse, lanes, closing: false };
    let attachment = Attachment {
        shared: Arc::clone(&shared),
        path: PathBuf::new(),
        mirror: Mirror::default(),
        live: Some(live),
        pause: PAUSE_MIN,
        next_attempt: Instant::now(),
        started: None,
    };
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let _attachment = attachment;
        let _ = wait.recv();
        std::panic::resume_unwind(Box::new("a bug"));
    });
    let node = Node::new(shared, thread);
    let handle = FunctionHandle { node: node.shared().id, id: 0 };
    let call = node.submit(handle, b"x".as_slice().into()).unwrap();
    worker.begin();
    drop(go);
    assert_eq!(call.wait().status, Status::Cancelled);
    assert!(matches!(node.submit(handle, b"x".as_slice().into()), Err(CallError::Closed)));
    // The node learns it by the end of the connection.
    assert_eq!(socket::recv(far.as_fd(), &mut [0; 8], 0, None).unwrap().len, 0);
}
