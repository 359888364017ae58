//! Dependency direction: who may know whom, as data, checked on `cargo metadata`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::finding::Finding;

/// What one crate of the workspace may depend on.
struct Rule {
    krate: &'static str,
    /// Crates of this workspace; dev-dependencies are free.
    ours: &'static [&'static str],
    /// Crates from elsewhere, when that is part of the promise.
    theirs: Theirs,
}

enum Theirs {
    /// These and no others, dev-dependencies apart.
    Only(&'static [&'static str]),
    /// Whatever `cargo deny` accepts, but nothing of [`EDGE`].
    NoEdge,
    /// Whatever `cargo deny` accepts.
    Any,
}

/// Crates that speak a protocol or a language of the edge: core knows none of them.
const EDGE: &[&str] =
    &["axum", "cbindgen", "http", "http-body", "http-body-util", "hyper", "hyper-util", "pyo3"];

/// The direction: `abi, lane <- preempt, sys <- worker`; `lane, sys <- node <- ffi, bindings, cli, gateways/http`.
const RULES: &[Rule] = &[
    Rule { krate: "microfaas-abi", ours: &[], theirs: Theirs::Only(&[]) },
    Rule { krate: "microfaas-lane", ours: &[], theirs: Theirs::Only(&["loom", "serde"]) },
    Rule { krate: "microfaas-control", ours: &["microfaas-lane"], theirs: Theirs::NoEdge },
    Rule { krate: "microfaas-sys", ours: &[], theirs: Theirs::NoEdge },
    Rule {
        krate: "microfaas-metrics",
        ours: &["microfaas-lane", "microfaas-sys"],
        theirs: Theirs::Only(&[]),
    },
    Rule {
        krate: "microfaas-preempt",
        ours: &["microfaas-abi", "microfaas-lane", "microfaas-sys"],
        theirs: Theirs::NoEdge,
    },
    Rule {
        krate: "microfaas-sandbox",
        ours: &["microfaas-control", "microfaas-sys"],
        theirs: Theirs::NoEdge,
    },
    Rule {
        krate: "microfaas-worker",
        ours: &[
            "microfaas-abi",
            "microfaas-control",
            "microfaas-lane",
            "microfaas-metrics",
            "microfaas-preempt",
            "microfaas-sandbox",
            "microfaas-sys",
        ],
        theirs: Theirs::NoEdge,
    },
    Rule { krate: "microfaas-manifest", ours: &["microfaas-abi"], theirs: Theirs::NoEdge },
    Rule { krate: "microfaas-build", ours: &["microfaas-abi", "microfaas-manifest"], theirs: Theirs::NoEdge },
    Rule {
        krate: "microfaas-node",
        ours: &[
            "microfaas-abi",
            "microfaas-control",
            "microfaas-lane",
            "microfaas-manifest",
            "microfaas-metrics",
            "microfaas-sys",
        ],
        theirs: Theirs::NoEdge,
    },
    Rule { krate: "microfaas-macros", ours: &[], theirs: Theirs::NoEdge },
    Rule {
        krate: "microfaas",
        ours: &["microfaas-abi", "microfaas-lane", "microfaas-macros"],
        theirs: Theirs::NoEdge,
    },
    // The lane for its words only: a call's status.
    Rule { krate: "microfaas-http", ours: &["microfaas-lane", "microfaas-node"], theirs: Theirs::Any },
    Rule {
        krate: "microfaas-cli",
        ours: &[
            "microfaas-abi",
            "microfaas-build",
            "microfaas-http",
            "microfaas-manifest",
            "microfaas-node",
            "microfaas-sandbox",
            "microfaas-sys",
        ],
        theirs: Theirs::Any,
    },
    Rule { krate: "microfaas-model", ours: &["microfaas-lane"], theirs: Theirs::Only(&["loom"]) },
    Rule {
        krate: "microfaas-chaos",
        ours: &["microfaas-build", "microfaas-node", "microfaas-sys"],
        theirs: Theirs::Any,
    },
    Rule { krate: "microfaas-xtask", ours: &[], theirs: Theirs::Only(&["serde", "serde_json", "sha2"]) },
    Rule {
        krate: "microfaas-e2e",
        ours: &[
            "microfaas-abi",
            "microfaas-build",
            "microfaas-control",
            "microfaas-http",
            "microfaas-lane",
            "microfaas-metrics",
            "microfaas-node",
            "microfaas-preempt",
            "microfaas-sandbox",
            "microfaas-sys",
            "microfaas-worker",
        ],
        theirs: Theirs::Any,
    },
];

/// Never, not even for a test: these two meet in a lane, as two processes do.
const APART: &[(&str, &str)] =
    &[("microfaas-node", "microfaas-worker"), ("microfaas-worker", "microfaas-node")];
/// A dependency of the lane that exists only when a model runs.
const LOOM_TARGET: &str = "cfg(loom)";

/// The part of `cargo metadata --no-deps` that is needed here.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) workspace_root: PathBuf,
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// None for a normal dependency, else "dev" or "build".
    kind: Option<String>,
    target: Option<String>,
    /// Set for crates of this repository.
    path: Option<PathBuf>,
}

impl Metadata {
    /// Asks the cargo that runs this program.
    ///
    /// # Errors
    /// When cargo fails (the message is its own) or answers something else than metadata.
    pub(crate) fn of_this_workspace() -> Result<Self, String> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .output()
            .map_err(|e| format!("cannot run cargo metadata: {e}"))?;
        if !output.status.success() {
            return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo metadata: {e}"))
    }
}

pub(crate) fn check(metadata: &Metadata) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in &metadata.packages {
        let file = manifest_of(package, &metadata.workspace_root);
        let Some(rule) = RULES.iter().find(|rule| rule.krate == package.name) else {
            findings.push(Finding::whole(
                &file,
                format!("{} has no rule in tests/xtask/src/deps.rs", package.name),
            ));
            continue;
        };
        let broken = package.dependencies.iter().filter_map(|dependency| offence(rule, dependency));
        findings.extend(broken.map(|what| Finding::whole(&file, what)));
    }
    findings
}

fn manifest_of(package: &Package, root: &Path) -> String {
    package.manifest_path.strip_prefix(root).unwrap_or(&package.manifest_path).display().to_string()
}

/// What is wrong with one dependency, if anything is.
fn offence(rule: &Rule, dependency: &Dependency) -> Option<String> {
    let Dependency { name, kind, target, path } = dependency;
    let krate = rule.krate;
    if APART.contains(&(krate, name.as_str())) {
        return Some(format!("{krate} must never depend on {name}, not even for a test"));
    }
    if kind.as_deref() == Some("dev") {
        return None;
    }
    if path.is_some() {
        let allowed = rule.ours.contains(&name.as_str());
        return (!allowed)
            .then(|| format!("{krate} must not depend on {name}; allowed here: {:?}", rule.ours));
    }
    if krate == "microfaas-lane" && name == "loom" && target.as_deref() != Some(LOOM_TARGET) {
        return Some(format!("{krate} may depend on loom only for target {LOOM_TARGET}"));
    }
    let allowed = match rule.theirs {
        Theirs::Only(list) => list.contains(&name.as_str()),
        Theirs::NoEdge => !EDGE.contains(&name.as_str()),
        Theirs::Any => true,
    };
    (!allowed).then(|| format!("{krate} must not depend on {name} from outside the workspace"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Findings for one package with one dependency, given as the JSON that cargo prints.
    fn check_one(package: &str, dependency: &str) -> Vec<String> {
        let json = format!(
            r#"{{"workspace_root": "/r", "packages": [{{"name": "{package}", "manifest_path": "/r/x/Cargo.toml",
                "dependencies": [{dependency}]}}]}}"#
        );
        let metadata: Metadata = serde_json::from_str(&json).expect("the fixture is metadata");
        check(&metadata).iter().map(Finding::to_string).collect()
    }

    fn ours(name: &str, kind: &str) -> String {
        format!(r#"{{"name": "{name}", "kind": {kind}, "target": null, "path": "/r/y"}}"#)
    }

    fn theirs(name: &str, target: &str) -> String {
        format!(r#"{{"name": "{name}", "kind": null, "target": {target}, "path": null}}"#)
    }

    #[test]
    fn the_direction_holds() {
        for (package, dependency, kind, findings) in [
            ("microfaas-worker", "microfaas-lane", "null", 0),
            ("microfaas-worker", "microfaas-node", "null", 1),
            ("microfaas-worker", "microfaas-node", r#""dev""#, 1),
            ("microfaas-node", "microfaas-worker", r#""dev""#, 1),
            ("microfaas-node", "microfaas-sys", "null", 0),
            ("microfaas-abi", "microfaas-lane", "null", 1),
            ("microfaas-lane", "microfaas-sys", "null", 1),
            ("microfaas-lane", "microfaas-sys", r#""build""#, 1),
            ("microfaas-sys", "microfaas-lane", r#""dev""#, 0),
        ] {
            let found = check_one(package, &ours(dependency, kind));
            assert_eq!(found.len(), findings, "{package} -> {dependency} ({kind}): {found:?}");
        }
    }

    #[test]
    fn crates_from_outside_are_checked_where_promised() {
        for (package, dependency, target, findings) in [
            ("microfaas-abi", "libc", "null", 1),
            ("microfaas-lane", "loom", r#""cfg(loom)""#, 0),
            ("microfaas-lane", "loom", "null", 1),
            ("microfaas-lane", "libc", "null", 1),
            ("microfaas-node", "hyper", "null", 1),
            ("microfaas-node", "tokio", "null", 0),
            ("microfaas-http", "hyper", "null", 0),
        ] {
            let found = check_one(package, &theirs(dependency, target));
            assert_eq!(found.len(), findings, "{package} -> {dependency} ({target}): {found:?}");
        }
    }

    #[test]
    fn an_unknown_crate_needs_a_rule() {
        let found = check_one("microfaas-new", &theirs("libc", "null"));
        assert_eq!(found, ["x/Cargo.toml: microfaas-new has no rule in tests/xtask/src/deps.rs"]);
    }
}
