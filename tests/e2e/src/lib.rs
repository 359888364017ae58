//! What the end-to-end tests share: a module file that the hostile worker accepts, a node that runs it, and a watchdog.

pub mod attacks;
pub mod gate;
pub mod host;
pub mod inside;
pub mod raw_host;
pub mod versions;

use std::path::{Path, PathBuf};
use std::time::Duration;

use microfaas_abi::manifest;
use microfaas_node::{Completion, Node, NodeBuilder, Request, Status};
use object::write::{Object, StandardSegment};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, elf};
use tempfile::TempDir;

/// Environment variable that tells the hostile worker how to behave while it is set up; see its source.
pub const BEHAVIOUR: &str = "MICROFAAS_TEST_BEHAVIOUR";

/// Environment variable with the path of the file to which the hostile worker appends the body of each `echo` that it runs, and of each `hang` that it has begun.
pub const LEDGER: &str = "MICROFAAS_TEST_LEDGER";

/// Environment variable with the path of the file that `counting-worker` counts its allocations in: one number, in a page.
pub const COUNT_FILE: &str = "MICROFAAS_TEST_COUNT_FILE";

/// What the hostile worker's calls can be; each is a function of [`module`].
pub const FUNCTIONS: &[&str] = &[
    "echo", "sleep", "gate", "die", "hang", "error", "panic", "lie", "bad-meta", "big", "count", "cpu",
    "attack",
];
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

/// The module of `tests/functions/probe`, built once for all tests; processes share it, since a module is replaced whole.
///
/// # Panics
/// Where it cannot be built.
#[must_use]
pub fn probe() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let programs = program("microfaas-worker");
    let scratch = programs.parent().expect("a program is in a folder").join("e2e-modules");
    let mut options =
        microfaas_build::BuildOptions::new([root.join("tests/functions/probe")], scratch.join("out"));
    options.target_dir = Some(scratch.join("target"));
    let built = microfaas_build::build(&options, &mut |_| {}).expect("the probe module builds");
    built[0].path.clone()
}

/// Settings of a node with one real worker that has the probe module.
///
/// # Panics
/// As [`probe`].
pub fn probe_node() -> NodeBuilder {
    microfaas_node::Node::builder().module(probe()).worker_binary(program("microfaas-worker")).workers(1)
}

/// The hostile worker's program.
///
/// # Panics
/// Where it is not there.
#[must_use]
pub fn hostile_worker() -> PathBuf {
    program("hostile-worker")
}

/// A program of the workspace, which cargo has built next to the tests.
///
/// # Panics
/// Where it is not there.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its program");
    let folder = test.ancestors().nth(2).expect("tests are two folders below the programs");
    let program = folder.join(name);
    assert!(program.is_file(), "`{}` is not built: cargo build --workspace --bins", program.display());
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
        // What does not answer the node once it serves is no spare for long.
        .spares(0)
        .workers(1);
    (builder, directory)
}

/// A program in this folder that is a worker's, and the path of a file: while that is there, the program ends at once and says nothing.
///
/// # Panics
/// Where it cannot be written.
#[must_use]
pub fn breakable(worker: &Path, folder: &Path) -> (PathBuf, PathBuf) {
    use std::os::unix::fs::PermissionsExt;
    let (program, broken) = (folder.join("worker"), folder.join("broken"));
    let (is_broken, exec) = (broken.display(), worker.display());
    let script = format!("#!/bin/sh\n[ -e '{is_broken}' ] && exit 1\nexec '{exec}' \"$@\"\n");
    std::fs::write(&program, script).expect("writing into a folder for tests");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&program, mode).expect("it is this user's own");
    (program, broken)
}

/// How a call ends that was started before its deadline. On a busy machine that may be over before, which says nothing of what is asked: then another one is made.
pub fn started(node: &Node, function: &str, request: Request<'_>) -> Completion {
    let call = || node.call(function, request);
    std::iter::repeat_with(call).find(|done| done.status != Status::Expired).expect("there is no last one")
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
