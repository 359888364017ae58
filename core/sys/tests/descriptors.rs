//! What comes with a packet that a process has no room for. Alone in its process: the limit of descriptors is one for all threads.

use std::os::fd::{AsFd, AsRawFd};

use microfaas_sys::socket::{self, try_recv, try_recv_what_fits};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

#[test]
fn what_cannot_be_taken_is_said_and_what_can_is_not_left_open() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let (near, far) = socket::pair().unwrap();
    // The lowest number that was free: those below it are in use.
    let last = near.as_fd().try_clone_to_owned().unwrap();
    let first = u64::try_from(last.as_raw_fd()).unwrap() + 1;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let before = open();
    for room in [0, 2, 100_u8] {
        let mut buffer = [0; 16];
        let mut with_room = |receive: fn(_, &mut [u8], usize) -> _| {
            socket::send(near.as_fd(), b"five", &[near.as_fd(); 5]).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, first + u64::from(room), hard).unwrap();
            let packet: std::io::Result<socket::Packet> = receive(far.as_fd(), &mut buffer, 5);
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
            packet
        };
        let packet = with_room(try_recv_what_fits).unwrap();
        // Some of the numbers may be in use.
        let taken = packet.fds.len();
        assert!(taken <= usize::from(room), "{taken} of {room}");
        assert_eq!((packet.len, taken == 5, packet.lost_fds), (4, room == 100, room < 100));
        drop(packet);
        assert_eq!(with_room(try_recv).is_ok(), room == 100);
        assert_eq!(open(), before);
    }
}
