//! Builds what a benchmark needs from the checkout that it is run in: the functions' module and the rivals.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use microfaas_build::{BuildOptions, build};
use serde_json::Value;

use super::stopped;
use crate::failure::Failure;

const FUNCTIONS: &str = "tests/functions/probe";
const RIVALS: &str = "tests/bench/rivals/Cargo.toml";

/// A checkout of this project.
#[derive(Debug)]
pub(super) struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// The one that the current directory is in, else the one that this program lies in.
    pub(super) fn find() -> Result<Self, Failure> {
        let places = [env::current_dir(), env::current_exe()];
        let mut folders = places.iter().flatten().flat_map(|place| place.ancestors());
        let root = folders.find(|folder| folder.join(RIVALS).is_file() && folder.join(FUNCTIONS).is_dir());
        let root = root.map(Path::to_path_buf);
        root.map(|root| Self { root }).ok_or_else(|| {
            stopped(format!(
                "not in a checkout: no folder above the current one has {FUNCTIONS} and {RIVALS}"
            ))
        })
    }

    /// Builds the test functions' module; returns the folder that it is in.
    pub(super) fn functions(&self) -> Result<PathBuf, Failure> {
        self.modules(&[FUNCTIONS], "modules")
    }

    /// Builds function crates of the checkout; returns the folder of that name, which has their modules.
    pub(super) fn modules(&self, crates: &[&str], name: &str) -> Result<PathBuf, Failure> {
        let folder = self.folder()?;
        let crates = crates.iter().map(|directory| self.root.join(directory));
        let mut options = BuildOptions::new(crates, folder.join(name));
        options.target_dir = Some(folder.join("functions"));
        build(&options, &mut |line| tracing::info!("{line}"))?;
        Ok(options.out)
    }

    /// Where benchmarks keep what they make.
    pub(super) fn folder(&self) -> Result<PathBuf, Failure> {
        let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root.join("target"), PathBuf::from);
        Ok(std::path::absolute(target).map_err(stopped)?.join("bench"))
    }

    /// Builds the rivals; returns their programs.
    pub(super) fn rivals(&self) -> Result<Vec<PathBuf>, Failure> {
        self.cargo_build(&["--manifest-path", RIVALS])
    }

    /// Builds a program of the end-to-end tests, with the features that a build of the whole workspace has: then most of it is there.
    pub(super) fn test_program(&self, name: &str) -> Result<PathBuf, Failure> {
        let mut built = self.cargo_build(&["--workspace", "--bin", name])?;
        built.pop().ok_or_else(|| stopped(format!("cargo has built no {name}")))
    }

    /// Runs cargo in the checkout; returns the programs that it has built.
    fn cargo_build(&self, what: &[&str]) -> Result<Vec<PathBuf>, Failure> {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["build", "--release", "--locked", "--quiet", "--message-format=json-render-diagnostics"])
            .args(what)
            .current_dir(&self.root)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .map_err(|e| stopped(format!("cannot start cargo: {e}")))?;
        if !output.status.success() {
            return Err(stopped(format!("cargo cannot build {} ({})", what.join(" "), output.status)));
        }
        Ok(programs(&output.stdout))
    }
}

/// The programs that cargo's messages name.
fn programs(messages: &[u8]) -> Vec<PathBuf> {
    let lines = messages.split(|&byte| byte == b'\n');
    let messages = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read_from_cargo() {
        let messages = b"{\"reason\":\"compiler-artifact\",\"executable\":null}\n\
            {\"reason\":\"compiler-artifact\",\"executable\":\"t/release/rival-uds\"}\nnoise\n";
        assert_eq!(programs(messages), [PathBuf::from("t/release/rival-uds")]);
    }

    #[test]
    fn the_tests_are_in_a_checkout() {
        assert!(Checkout::find().is_ok());
    }
}
