//! Asking cargo: what a crate is, and to build one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::error::BuildError;

/// What `cargo metadata` says of a function crate.
#[derive(Debug)]
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) manifest: PathBuf,
    /// Root of its source, `src/lib.rs` as a rule.
    pub(crate) root: PathBuf,
    pub(crate) workspace_root: PathBuf,
    pub(crate) target_dir: PathBuf,
    pub(crate) sdk: Sdk,
}

/// Where the author's `microfaas` dependency comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sdk {
    Path(PathBuf),
    Git { url: String, rev: String },
    Registry { version: String, index: Option<String> },
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
    #[serde(default)]
    resolve: Option<Resolve>,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    edition: String,
    manifest_path: PathBuf,
    source: Option<String>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<NodeDep>,
}

#[derive(Deserialize)]
struct NodeDep {
    pkg: String,
}

/// The cargo that runs this program, or the one on the path.
fn program() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Looks at the crate in `dir`, which must exist.
pub(crate) fn look_at(dir: &Path) -> Result<Crate, BuildError> {
    let manifest = dir.join("Cargo.toml");
    if !manifest.is_file() {
        return Err(BuildError::NotACrate(dir.to_owned()));
    }
    let manifest = std::path::absolute(&manifest).map_err(crate::error::io_error(&manifest, "find"))?;
    // Two steps: the first needs no dependency, so that mistakes in the crate itself are named first.
    let bare = metadata(&manifest, &["--no-deps"])?;
    let package = bare
        .packages
        .into_iter()
        .find(|package| same_file(&package.manifest_path, &manifest))
        .ok_or_else(|| BuildError::Workspace(dir.to_owned()))?;
    if package.edition != "2024" {
        return Err(BuildError::Edition { manifest, edition: package.edition });
    }
    let library = package
        .targets
        .into_iter()
        .find(|target| target.kind.iter().any(|kind| kind == "lib" || kind == "rlib"));
    let Some(library) = library else {
        return Err(BuildError::NoLibrary { manifest, krate: package.name });
    };
    let host = host_triple()?;
    let full = metadata(&manifest, &["--filter-platform", &host])?;
    let sdk = sdk_of(&full, &package.id)
        .ok_or_else(|| BuildError::NoSdk { manifest: manifest.clone(), krate: package.name.clone() })?;
    Ok(Crate {
        name: package.name,
        manifest: package.manifest_path,
        root: library.src_path,
        workspace_root: bare.workspace_root,
        target_dir: bare.target_directory,
        sdk,
    })
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

fn sdk_of(metadata: &Metadata, id: &str) -> Option<Sdk> {
    let node = metadata.resolve.as_ref()?.nodes.iter().find(|node| node.id == id)?;
    let packages: BTreeMap<&str, &Package> = metadata.packages.iter().map(|p| (p.id.as_str(), p)).collect();
    let sdk =
        node.deps.iter().filter_map(|dep| packages.get(dep.pkg.as_str())).find(|p| p.name == "microfaas")?;
    Some(match sdk.source.as_deref() {
        None => Sdk::Path(sdk.manifest_path.parent()?.to_owned()),
        Some(source) => match source.strip_prefix("git+") {
            Some(git) => {
                let (url, rev) = git.split_once('#')?;
                let url = url.split_once('?').map_or(url, |(url, _)| url);
                Sdk::Git { url: url.to_owned(), rev: rev.to_owned() }
            }
            None => {
                let index = source
                    .strip_prefix("registry+")
                    .or_else(|| source.strip_prefix("sparse+").map(|_| source));
                let index = index.filter(|url| !url.ends_with("/crates.io-index")).map(str::to_owned);
                Sdk::Registry { version: sdk.version.clone(), index }
            }
        },
    })
}

fn metadata(manifest: &Path, arguments: &[&str]) -> Result<Metadata, BuildError> {
    let mut command = Command::new(program());
    command.args(["metadata", "--format-version", "1", "--color", "never", "--manifest-path"]).arg(manifest);
    command.args(arguments).stdin(Stdio::null());
    if let Some(dir) = manifest.parent() {
        command.current_dir(dir);
    }
    let output = command.output().map_err(cannot_run)?;
    let failed = |text: String| failure(manifest, "cargo metadata", text);
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| failed(format!("error: {error}")))
}

fn host_triple() -> Result<String, BuildError> {
    let program = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(&program).arg("-vV").output();
    let output = output
        .map_err(|source| BuildError::Spawn { program: program.to_string_lossy().into_owned(), source })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.unwrap_or("x86_64-unknown-linux-gnu").to_owned())
}

fn cannot_run(source: std::io::Error) -> BuildError {
    BuildError::Spawn { program: program().to_string_lossy().into_owned(), source }
}

fn failure(manifest: &Path, what: &'static str, output: String) -> BuildError {
    let first = output.lines().find(|line| line.starts_with("error")).or_else(|| output.lines().next());
    let first_line = first.unwrap_or("no output").trim_start_matches("error: ").to_owned();
    BuildError::Cargo { manifest: manifest.to_owned(), what, first_line, output }
}

/// One line of cargo's `--message-format=json`.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// How a shim is to be compiled.
pub(crate) struct Compile<'a> {
    /// The shim's Cargo.toml.
    pub(crate) manifest: &'a Path,
    /// The author's directory, whose `.cargo/config.toml` and toolchain hold.
    pub(crate) current_dir: &'a Path,
    pub(crate) target_dir: &'a Path,
    /// `release` or `dev`.
    pub(crate) profile: &'a str,
    /// Whether cargo's own output goes to the standard error stream as it comes.
    pub(crate) verbose: bool,
}

/// Compiles a shim and returns the shared library.
pub(crate) fn compile(compile: &Compile<'_>, author: &Path) -> Result<PathBuf, BuildError> {
    let mut command = Command::new(program());
    command.arg("rustc").arg("--lib");
    command.args([
        "--message-format",
        "json-render-diagnostics",
        "--profile",
        compile.profile,
        "--manifest-path",
    ]);
    command.arg(compile.manifest).arg("--target-dir").arg(compile.target_dir);
    if !compile.verbose {
        command.args(["--color", "never"]);
    }
    // Of the shim alone: references inside the module stay inside it, and all is resolved when it is loaded.
    command.args(["--", "-C", "link-arg=-Wl,-Bsymbolic", "-C", "link-arg=-Wl,-z,now"]);
    command.current_dir(compile.current_dir).stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(if compile.verbose { Stdio::inherit() } else { Stdio::piped() });
    let output = command.spawn().and_then(std::process::Child::wait_with_output).map_err(cannot_run)?;
    if !output.status.success() {
        return Err(failure(author, "cargo rustc", String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| {
            message.reason == "compiler-artifact" && same_file(&message.manifest_path, compile.manifest)
        })
        .flat_map(|message| message.filenames)
        .find(|file| file.extension().is_some_and(|extension| extension == "so"))
        .ok_or_else(|| failure(author, "cargo rustc", "error: no shared library came out".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, source: Option<&str>) -> Package {
        Package {
            id: name.to_owned(),
            name: name.to_owned(),
            version: "1.2.3".to_owned(),
            edition: "2024".to_owned(),
            manifest_path: PathBuf::from("/src").join(name).join("Cargo.toml"),
            source: source.map(str::to_owned),
            targets: Vec::new(),
        }
    }

    fn sdk_from(source: Option<&str>) -> Option<Sdk> {
        let dep = NodeDep { pkg: "microfaas".to_owned() };
        let metadata = Metadata {
            packages: vec![package("author", None), package("microfaas", source)],
            workspace_root: PathBuf::new(),
            target_directory: PathBuf::new(),
            resolve: Some(Resolve { nodes: vec![Node { id: "author".to_owned(), deps: vec![dep] }] }),
        };
        sdk_of(&metadata, "author")
    }

    #[test]
    fn the_sdk_is_the_one_that_the_author_resolved() {
        assert_eq!(sdk_from(None), Some(Sdk::Path("/src/microfaas".into())));
        assert_eq!(
            sdk_from(Some("git+https://forge.example/m?branch=main#abc")),
            Some(Sdk::Git { url: "https://forge.example/m".to_owned(), rev: "abc".to_owned() })
        );
        assert_eq!(
            sdk_from(Some("registry+https://forge.example/crates.io-index")),
            Some(Sdk::Registry { version: "1.2.3".to_owned(), index: None })
        );
        assert_eq!(
            sdk_from(Some("sparse+https://forge.example/index/")),
            Some(Sdk::Registry {
                version: "1.2.3".to_owned(),
                index: Some("sparse+https://forge.example/index/".to_owned())
            })
        );
    }

    #[test]
    fn the_first_error_is_the_line_shown() {
        let error = failure(
            Path::new("a/Cargo.toml"),
            "cargo rustc",
            "   Compiling x\nerror[E1]: no\nmore".to_owned(),
        );
        assert_eq!(error.to_string(), "a/Cargo.toml: cargo rustc failed: error[E1]: no");
        assert_eq!(error.cargo_output().map(|output| output.lines().count()), Some(3));
    }
}
