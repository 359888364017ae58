#![expect(unsafe_code, reason = "maps a memfd that two processes share, and views it as atomics")]
//! One cache line from the client to the server and one back, over a shared memfd, both sides spinning: what two cores need to
//! hand each other a word. No ring, no slot, no check of the peer, no sleeping: nothing that carries calls can be faster.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use nix::sys::memfd::{MFdFlags, memfd_create};
use rival_common::{Args, Echo, Rival, run};

/// Words of payload in a line, beside its number.
const WORDS: usize = 7;
const PAYLOAD_MAX: usize = WORDS * size_of::<u64>();

fn main() -> ExitCode {
    run(Rival { name: "pingpong", payload_max: PAYLOAD_MAX, client, server, cleanup: |_| {} })
}

/// One direction: a line of its own, and the next one left empty because cores fetch lines in pairs.
#[repr(C, align(128))]
struct Line {
    /// Number of the message in `words`, stored after them.
    number: AtomicU64,
    words: [AtomicU64; WORDS],
}

#[repr(C)]
struct Table {
    request: Line,
    answer: Line,
}

const _: () = assert!(size_of::<Table>() == 256 && std::mem::offset_of!(Line, words) + PAYLOAD_MAX == 64);

/// A `Table` in shared memory.
struct Shared(MmapRaw);

impl Shared {
    fn map(file: &File) -> Result<Self, String> {
        let map = MmapOptions::new().len(size_of::<Table>()).populate().map_raw(file);
        map.map(Self).map_err(|e| format!("cannot map the lines: {e}"))
    }

    fn table(&self) -> &Table {
        let table = self.0.as_ptr().cast::<Table>();
        // SAFETY: the mapping is writable, page-aligned, as long as `Table` (`map`), and lives as long as `self`; the file
        // has that length and is never truncated. Every bit pattern is a `Table`, and all of its fields are atomics, so the
        // other process may write them at any time.
        unsafe { &*table }
    }
}

impl Line {
    /// Publishes `words` as message `number`.
    fn put(&self, number: u64, words: &[u64; WORDS], used: usize) {
        for (to, from) in self.words.iter().zip(words).take(used) {
            to.store(*from, Ordering::Relaxed);
        }
        self.number.store(number, Ordering::Release);
    }

    /// Spins until message `number` is there.
    fn take(&self, number: u64, used: usize) -> [u64; WORDS] {
        while self.number.load(Ordering::Acquire) != number {
            std::hint::spin_loop();
        }
        let mut words = [0; WORDS];
        for (to, from) in words.iter_mut().zip(&self.words).take(used) {
            *to = from.load(Ordering::Relaxed);
        }
        words
    }
}

struct Client {
    shared: Shared,
    number: u64,
}

/// Payload words as bytes, cut to the payload's length.
struct Answer {
    bytes: [u8; PAYLOAD_MAX],
    len: usize,
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Echo for Client {
    type Answer<'a> = Answer;

    fn call(&mut self, request: &[u8]) -> Result<Answer, String> {
        let used = request.len().div_ceil(size_of::<u64>());
        let mut bytes = [0; PAYLOAD_MAX];
        bytes[..request.len()].copy_from_slice(request);
        let mut words = [0; WORDS];
        for (word, chunk) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*chunk);
        }
        self.number += 1;
        let table = self.shared.table();
        table.request.put(self.number, &words, used);
        let words = table.answer.take(self.number, used);
        for (chunk, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *chunk = word.to_le_bytes();
        }
        Ok(Answer { bytes, len: request.len() })
    }
}

type Connect = Box<dyn FnOnce() -> Result<Client, String>>;

fn client(_: &Args) -> Result<(Stdio, Connect), String> {
    let fd = memfd_create("rival-pingpong", MFdFlags::MFD_CLOEXEC)
        .map_err(|e| format!("cannot make a memfd: {e}"))?;
    let file = File::from(fd);
    file.set_len(size_of::<Table>() as u64).map_err(|e| format!("cannot size the memfd: {e}"))?;
    let shared = Shared::map(&file)?;
    Ok((Stdio::from(file), Box::new(move || Ok(Client { shared, number: 0 }))))
}

fn server(args: &Args) -> Result<(), String> {
    let fd: OwnedFd =
        std::io::stdin().as_fd().try_clone_to_owned().map_err(|e| format!("no memfd as input: {e}"))?;
    let shared = Shared::map(&File::from(fd))?;
    let table = shared.table();
    let used = args.payload.div_ceil(size_of::<u64>());
    let mut number = 0;
    loop {
        number += 1;
        let words = table.request.take(number, used);
        table.answer.put(number, &words, used);
    }
}
