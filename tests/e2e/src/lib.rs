//! What the end-to-end tests share: a module file that the hostile worker accepts, a node that runs it, and a watchdog.

use std::path::PathBuf;
use std::time::Duration;

use microfaas_abi::manifest;
use microfaas_node::NodeBuilder;
use object::write::{Object, StandardSegment};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, elf};
use tempfile::TempDir;

/// Environment variable that tells the hostile worker how to behave while it is set up; see its source.
pub const BEHAVIOUR: &str = "MICROFAAS_TEST_BEHAVIOUR";

/// What the hostile worker's calls can be; each is a function of [`module`].
pub const FUNCTIONS: &[&str] =
    &["echo", "sleep", "die", "hang", "error", "panic", "lie", "bad-meta", "big", "count", "cpu"];
const NOTE: [u8; manifest::encoded_len(FUNCTIONS)] = manifest::encode(FUNCTIONS);

/// A directory with one file, `fake.so`, whose manifest lists [`FUNCTIONS`]. It holds no code.
///
/// # Panics
/// Where the file cannot be written.
#[must_use]
pub fn module() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory for a test");
    let architecture =
        if cfg!(target_arch = "aarch64") { Architecture::Aarch64 } else { Architecture::X86_64 };
    let mut object = Object::new(BinaryFormat::Elf, architecture, Endianness::Little);
    let segment = object.segment_name(StandardSegment::Data).to_vec();
    let section = object.add_section(segment, manifest::SECTION.into(), SectionKind::Note);
    object.append_section_data(section, &NOTE, 4);
    let mut bytes = object.write().expect("an object file");
    bytes[16..18].copy_from_slice(&elf::ET_DYN.0.to_le_bytes());
    std::fs::write(directory.path().join("fake.so"), bytes).expect("writing into a new directory");
    directory
}

/// The hostile worker's program, which cargo has built next to the tests.
///
/// # Panics
/// Where it is not there.
#[must_use]
pub fn hostile_worker() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its program");
    let folder = test.ancestors().nth(2).expect("tests are two folders below the programs");
    let program = folder.join("hostile-worker");
    assert!(program.is_file(), "`{}` is not built", program.display());
    program
}

/// Settings of a node whose workers are the hostile one, with this behaviour.
///
/// # Panics
/// Where the module cannot be written.
pub fn hostile_node(behaviour: &str) -> (NodeBuilder, TempDir) {
    let directory = module();
    let builder = microfaas_node::Node::builder()
        .modules(directory.path())
        .worker_binary(hostile_worker())
        .worker_env(BEHAVIOUR, behaviour)
        .workers(1);
    (builder, directory)
}

/// Ends the test program with a message where it is not dropped in time: a hang is a failure, not a wait.
#[derive(Debug)]
pub struct Watchdog {
    done: std::sync::mpsc::Sender<()>,
}

impl Watchdog {
    /// Starts counting.
    ///
    /// # Panics
    /// Where no thread can be started.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        let (done, over) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            if over.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                eprintln!("watchdog: the test did not end within {limit:?}");
                std::process::abort();
            }
        });
        Self { done }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let _ = self.done.send(());
    }
}
