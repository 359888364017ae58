//! A Unix stream socket between two processes, both sides spinning on non-blocking reads and writes, so that no wake-up is in
//! the figure: what a local call costs when the kernel carries it.
//!
//! A message is its length as eight bytes, then the payload; each side knows the payload's size and reads both at once.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{ExitCode, Stdio};

use rival_common::{Args, Echo, Rival, run};

const HEADER: usize = size_of::<u64>();
const PAYLOAD_MAX: usize = 16 << 20;

fn main() -> ExitCode {
    run(Rival { name: "uds", payload_max: PAYLOAD_MAX, client, server, cleanup: |_| {} })
}

/// One end: the socket, and one message's worth of memory for each direction.
struct End {
    socket: UnixStream,
    out: Vec<u8>,
    incoming: Vec<u8>,
}

impl End {
    fn new(socket: UnixStream, payload: usize) -> Result<Self, String> {
        socket.set_nonblocking(true).map_err(|e| format!("cannot make the socket non-blocking: {e}"))?;
        let mut out = vec![0; HEADER + payload];
        out[..HEADER].copy_from_slice(&(payload as u64).to_le_bytes());
        Ok(Self { socket, out, incoming: vec![0; HEADER + payload] })
    }

    /// Sends `payload`, spinning while the socket is full.
    fn send(&mut self, payload: &[u8]) -> Result<(), String> {
        self.out[HEADER..].copy_from_slice(payload);
        write_all(&mut self.socket, &self.out)
    }

    /// Sends back what was received last.
    fn send_back(&mut self) -> Result<(), String> {
        write_all(&mut self.socket, &self.incoming)
    }

    /// Receives one message, spinning until it is whole.
    fn receive(&mut self) -> Result<&[u8], String> {
        let mut len = 0;
        while len < self.incoming.len() {
            match self.socket.read(&mut self.incoming[len..]) {
                Ok(0) => return Err("the other side closed the socket".to_owned()),
                Ok(n) => len += n,
                Err(e) if is_not_now(&e) => std::hint::spin_loop(),
                Err(e) => return Err(format!("cannot read the socket: {e}")),
            }
        }
        let (header, payload) = self.incoming.split_at(HEADER);
        if header == (payload.len() as u64).to_le_bytes() {
            Ok(payload)
        } else {
            Err("a message of another length".to_owned())
        }
    }
}

fn write_all(socket: &mut UnixStream, mut bytes: &[u8]) -> Result<(), String> {
    while !bytes.is_empty() {
        match socket.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(e) if is_not_now(&e) => std::hint::spin_loop(),
            Err(e) => return Err(format!("cannot write the socket: {e}")),
        }
    }
    Ok(())
}

fn is_not_now(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl Echo for End {
    type Answer<'a> = &'a [u8];

    fn call(&mut self, request: &[u8]) -> Result<&[u8], String> {
        self.send(request)?;
        self.receive()
    }
}

type Connect = Box<dyn FnOnce() -> Result<End, String>>;

fn client(args: &Args) -> Result<(Stdio, Connect), String> {
    let (ours, theirs) = UnixStream::pair().map_err(|e| format!("cannot make a socket pair: {e}"))?;
    let end = End::new(ours, args.payload)?;
    Ok((Stdio::from(OwnedFd::from(theirs)), Box::new(move || Ok(end))))
}

fn server(args: &Args) -> Result<(), String> {
    let fd = std::io::stdin().as_fd().try_clone_to_owned().map_err(|e| format!("no socket as input: {e}"))?;
    let mut end = End::new(UnixStream::from(fd), args.payload)?;
    loop {
        end.receive()?;
        end.send_back()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Larger than a socket's buffer: both ends must read and write in turns.
    #[test]
    fn a_message_comes_back_whole() {
        for payload in [0, 1, 64, 1 << 20] {
            let (ours, theirs) = UnixStream::pair().expect("a pair");
            let mut client = End::new(ours, payload).expect("an end");
            let mut server = End::new(theirs, payload).expect("an end");
            let request: Vec<u8> = (0..payload).map(|at| (at % 251) as u8).collect();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    server.receive().expect("a request");
                    server.send_back().expect("sent");
                });
                assert_eq!(client.call(&request).expect("an answer"), request);
            });
        }
    }

    #[test]
    fn a_closed_socket_is_an_error() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        drop(theirs);
        let mut client = End::new(ours, 8).expect("an end");
        assert!(client.call(&[1; 8]).is_err());
    }
}
