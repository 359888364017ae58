//! What `build` and `scaffold` refuse, on crates as they lie on a disk, and that nothing is left behind.
#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails the test")]

use std::fs;
use std::path::Path;
use std::process::Command;

use microfaas_build::{BuildOptions, SdkDependency, build, scaffold};

/// A crate with this manifest, and with `lib.rs` if it is not empty.
fn write_crate(dir: &Path, manifest: &str, lib: &str) {
    fs::create_dir_all(dir.join("src")).unwrap();
    fs::write(dir.join("Cargo.toml"), manifest).unwrap();
    if !lib.is_empty() {
        fs::write(dir.join("src/lib.rs"), lib).unwrap();
    }
}

fn manifest(name: &str, edition: &str, rest: &str) -> String {
    format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"{edition}\"\n{rest}\n[workspace]\n"
    )
}

fn sdk() -> String {
    format!("[dependencies]\nmicrofaas = {{ path = \"{}/../sdk\" }}\n", env!("CARGO_MANIFEST_DIR"))
}

const GOOD: &str =
    "#![forbid(unsafe_code)]\n#[microfaas::function]\npub fn f(body: &[u8]) -> Vec<u8> { body.to_vec() }\n";

/// Building these directories below one of their own fails with this one line and leaves no output directory.
fn refused(root: &Path, dirs: &[&str], expect: &str) {
    let out = root.join("out");
    let mut options = BuildOptions::new(dirs.iter().map(|dir| root.join(dir)), &out);
    options.target_dir = Some(Path::new(env!("CARGO_TARGET_TMPDIR")).join("refusals"));
    let error = build(&options, &mut |_| {}).unwrap_err();
    let text = error.to_string().replace(&format!("{}/", root.display()), "");
    assert!(text.contains(expect), "{text}\nis not\n{expect}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!out.exists(), "{expect}: output directory was made");
}

#[test]
fn crates_that_cannot_be_modules() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    refused(root, &[], "no function crate to build");
    refused(root, &["absent"], "absent is not a crate: it has no Cargo.toml");
    write_crate(&root.join("old"), &manifest("old", "2021", &sdk()), GOOD);
    refused(root, &["old"], "old/Cargo.toml: edition 2021, function crates need 2024");
    write_crate(&root.join("alone"), &manifest("alone", "2024", ""), GOOD);
    refused(root, &["alone"], "alone/Cargo.toml: crate `alone` does not depend on `microfaas`");
    write_crate(&root.join("binary"), &manifest("binary", "2024", &sdk()), "");
    fs::write(root.join("binary/src/main.rs"), "fn main() {}").unwrap();
    refused(root, &["binary"], "binary/Cargo.toml: crate `binary` has no library target of type lib");
    write_crate(&root.join("broken"), "[package\n", GOOD);
    refused(root, &["broken"], "broken/Cargo.toml: cargo metadata failed: ");
    write_crate(&root.join("set"), "[workspace]\nmembers = []\n", "");
    refused(root, &["set"], "set is a workspace, not a crate");
    let unsafe_lib = format!("{GOOD}fn g() {{ unsafe {{ std::hint::unreachable_unchecked() }} }}\n");
    write_crate(&root.join("wild"), &manifest("wild", "2024", &sdk()), &unsafe_lib);
    refused(root, &["wild"], "wild/src/lib.rs:4: `unsafe` in a function crate");
}

#[test]
fn crates_that_are_in_each_other_s_way() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for name in ["one", "two"] {
        write_crate(&root.join(name), &manifest(name, "2024", &sdk()), GOOD);
    }
    refused(root, &["one", "two"], "function `f` is in one/src/lib.rs:3 and in two/src/lib.rs:3");
    write_crate(&root.join("again"), &manifest("one", "2024", &sdk()), &GOOD.replace("fn f", "fn g"));
    refused(root, &["one", "again"], "two crates are named `one`");
}

#[test]
fn a_crate_that_does_not_compile() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for (name, function, expect) in [
        (
            "wrong-input",
            "pub fn f(body: u32) -> Vec<u8> { vec![] }",
            "a microfaas function cannot take `u32`",
        ),
        ("wrong-output", "pub fn f(body: &[u8]) -> u32 { 1 }", "a microfaas function cannot return `u32`"),
        (
            "asynchronous",
            "pub async fn f(body: &[u8]) -> Vec<u8> { vec![] }",
            "a microfaas function cannot be async",
        ),
        ("stateless", "pub fn f(s: &u8, body: &[u8]) -> Vec<u8> { vec![] }", "expected one parameter"),
    ] {
        let lib = format!("#![forbid(unsafe_code)]\n#[microfaas::function]\n{function}\n");
        write_crate(&root.join(name), &manifest(name, "2024", &sdk()), &lib);
        refused(root, &[name], expect);
    }
}

#[test]
fn a_new_crate_passes_its_own_test_and_builds() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scaffold");
    let new = root.join("first-light");
    scaffold(&new, &SdkDependency::find()).unwrap();
    let test = Command::new(env!("CARGO"))
        .args(["test", "--offline"])
        .current_dir(&new)
        .env("CARGO_TARGET_DIR", &target)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&test.stdout).into_owned() + &String::from_utf8_lossy(&test.stderr);
    assert!(test.status.success() && said.contains("2 passed"), "{said}");
    let mut options = BuildOptions::new([new.clone()], root.join("out"));
    options.target_dir = Some(target);
    let modules = build(&options, &mut |_| {});
    let modules = modules.unwrap_or_else(|e| panic!("{e}\n{}", e.cargo_output().unwrap_or_default()));
    assert_eq!(modules[0].functions, ["hello"]);
    assert_eq!(modules[0].path, root.join("out/first-light.so"));
    let files: Vec<_> =
        fs::read_dir(root.join("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["first-light.so"], "nothing else is left");

    let error = scaffold(&new, &SdkDependency::find()).unwrap_err();
    assert_eq!(error.to_string(), format!("{} exists and is not an empty directory", new.display()));
    for name in ["1st", "a b", "fn", "test", "a\"b"] {
        let error = scaffold(&root.join(name), &SdkDependency::find()).unwrap_err().to_string();
        assert!(error.contains("a crate cannot be named after this directory"), "{error}");
        assert!(!root.join(name).exists());
    }
}
