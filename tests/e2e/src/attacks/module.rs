//! From source to modules: a function crate as it is, or one that is made around the cases.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use microfaas_build::BuildOptions;

use super::Case;

fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Builds function crates into `scratch`/modules, optimised; returns that directory.
///
/// # Panics
/// Where they do not compile.
#[must_use]
pub fn build(scratch: &Path, crates: impl IntoIterator<Item = PathBuf>, out: &str) -> PathBuf {
    let out = scratch.join(out);
    let mut options = BuildOptions::new(crates, &out);
    options.target_dir = Some(scratch.join("functions"));
    if let Err(error) = microfaas_build::build(&options, &mut |_| {}) {
        panic!("{error}\n{}", error.cargo_output().unwrap_or_default());
    }
    out
}

/// One module that has each case as a function, and the probe's module beside it; returns their directory.
///
/// # Panics
/// Where they do not compile.
#[must_use]
pub fn build_cases(scratch: &Path, cases: &[Case]) -> PathBuf {
    let probe = repository().join("tests/functions/probe");
    let directory = scratch.join("attack-cases");
    write_crate(&directory, &probe, cases);
    build(scratch, [directory, probe], "attack-modules")
}

/// The crate is made anew each time, so a case is added by adding a file. Files that are as they should be are not touched.
fn write_crate(directory: &Path, probe: &Path, cases: &[Case]) {
    let sdk = repository().join("core/sdk").canonicalize().expect("the SDK is in the repository");
    let manifest = format!(
        "[package]\nname = \"attack-cases\"\nversion = \"0.1.0\"\nedition = \"2024\"\npublish = false\n\n[dependencies]\nmicrofaas = {{ path = {sdk:?} }}\n\n[workspace]\n"
    );
    let shared = repository().join("tests/attacks/common/hole.rs");
    let shared = shared.canonicalize().expect("what cases share is in the repository");
    let mut source = format!(
        "//! Made from the cases by the test that runs them.\n#![forbid(unsafe_code)]\n\n#[path = {shared:?}]\nmod hole;\n"
    );
    for (i, case) in cases.iter().enumerate() {
        let file = case.file.canonicalize().expect("the case was just read");
        let written = write!(
            source,
            "\n#[path = {file:?}]\nmod case_{i};\n\n#[microfaas::function(name = {:?})]\npub fn run_{i}(body: &[u8]) -> Vec<u8> {{\n    case_{i}::attack(body)\n}}\n",
            case.name
        );
        written.expect("a text takes everything");
    }
    let lock = fs::read_to_string(probe.join("Cargo.lock")).expect("the probe's lock file");
    fs::create_dir_all(directory.join("src")).expect("a directory for a test");
    keep(&directory.join("Cargo.toml"), &manifest);
    keep(&directory.join("src/lib.rs"), &source);
    keep(&directory.join("Cargo.lock"), &lock.replace("name = \"probe\"", "name = \"attack-cases\""));
}

fn keep(path: &Path, text: &str) {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return;
    }
    // Whole or not at all: tests of several processes, and several of one, do this at the same time.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{number}", std::process::id()));
    fs::write(&temporary, text).expect("writing into a directory of the test's own");
    fs::rename(&temporary, path).expect("renaming within a directory");
}
