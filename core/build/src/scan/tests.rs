use std::fs;

use super::*;

/// Writes these files below a directory of its own and scans `src/lib.rs`. Errors come as text without that directory.
fn scan_files(files: &[(&str, &str)]) -> Result<Vec<Function>, String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let prefix = format!("{}/", dir.path().display());
    scan(&dir.path().join("src/lib.rs")).map_err(|error| error.to_string().replace(&prefix, ""))
}

/// One file, `#![forbid(unsafe_code)]` and a function before `text`.
fn refused(text: &str, expect: &str) {
    let text = format!(
        "#![forbid(unsafe_code)]\n#[microfaas::function] fn first(b: &[u8]) -> Vec<u8> {{ b.to_vec() }}\n{text}"
    );
    let error = scan_files(&[("src/lib.rs", &text)]).unwrap_err();
    assert!(error.contains(expect), "{error}\nis not\n{expect}");
}

#[test]
fn functions_are_found_in_modules_with_their_paths() {
    let found = scan_files(&[
        (
            "src/lib.rs",
            "//! Doc.\n#![deny(missing_docs)]\n#![forbid(unused_must_use, unsafe_code)]\npub mod a; pub mod b;\n\
             pub mod c { pub mod d; #[microfaas::function(init = f, name = \"in.c\")] fn x() {} }\n\
             #[path = \"odd/place.rs\"] pub mod e;\n\
             mod private; #[cfg(test)] mod tests { #[microfaas::function] fn not_this() {} }\n\
             #[function] pub fn r#match() {}",
        ),
        ("src/a.rs", "pub mod inner;"),
        ("src/a/inner.rs", "use microfaas::function;\n#[function]\nfn deep() {}"),
        ("src/b/mod.rs", "#[microfaas::function] fn in_b() {}"),
        ("src/c/d.rs", "#[microfaas::function] fn in_d() {}"),
        ("src/odd/place.rs", "#[microfaas::function] fn odd() {}"),
        ("src/private.rs", "// Nothing to export; the word unsafe in a comment or \"a text\" is none.\nfn f() { let _ = \"unsafe\"; }"),
    ])
    .unwrap();
    let shown: Vec<(&str, String)> = found.iter().map(|f| (f.name.as_str(), f.path("k"))).collect();
    let expect = [
        ("deep", "::k::a::inner::__microfaas_deep"),
        ("in_b", "::k::b::__microfaas_in_b"),
        ("in_d", "::k::c::d::__microfaas_in_d"),
        ("in.c", "::k::c::__microfaas_x"),
        ("odd", "::k::e::__microfaas_odd"),
        ("match", "::k::__microfaas_match"),
    ];
    assert!(shown.iter().map(|(name, path)| (*name, path.as_str())).eq(expect), "{shown:?}");
    assert!(found[0].place().ends_with("src/a/inner.rs:3"), "{}", found[0].place());
}

#[test]
fn unsafe_is_refused_wherever_it_stands() {
    for text in [
        "fn f() { unsafe { g() } }",
        "unsafe fn f() {}",
        "unsafe impl Send for X {}",
        "unsafe extern \"C\" { fn f(); }",
        "#[unsafe(no_mangle)] fn f() {}",
        "macro_rules! never_used { () => { unsafe {} }; }",
        "m!({ [unsafe] });",
    ] {
        refused(text, "src/lib.rs:3: `unsafe` in a function crate");
    }
    let hidden = scan_files(&[
        ("src/lib.rs", "#![forbid(unsafe_code)]\nmod a;\n#[microfaas::function] fn f() {}"),
        ("src/a.rs", "\nfn g() {\n    unsafe {}\n}"),
    ]);
    assert_eq!(hidden.unwrap_err(), "src/a.rs:3: `unsafe` in a function crate");
}

#[test]
fn the_crate_root_must_forbid_it() {
    for head in ["", "#![deny(unsafe_code)]", "// #![forbid(unsafe_code)]", "#![forbid(unused)]"] {
        let text = format!("{head}\n#[microfaas::function] fn f() {{}}");
        assert_eq!(
            scan_files(&[("src/lib.rs", &text)]).unwrap_err(),
            "src/lib.rs: function crates must have #![forbid(unsafe_code)] at the top of the crate root"
        );
    }
}

#[test]
fn functions_that_cannot_be_reached_are_refused() {
    refused(
        "mod m { #[microfaas::function] fn f() {} }",
        "src/lib.rs:3: function `f` is in module `m`, which is not pub",
    );
    refused(
        "pub(crate) mod m { pub mod n { #[microfaas::function] fn f() {} } }",
        "is in module `m`, which is not pub",
    );
    refused("#[cfg(feature = \"x\")] #[microfaas::function] fn f() {}", "may be configured away");
    refused(
        "fn g() { #[microfaas::function] fn f() {} }",
        "src/lib.rs:3: function `f` is inside another item",
    );
    refused("impl X { #[microfaas::function] fn f() {} }", "function `f` is inside another item");
    refused("const _: () = { #[microfaas::function] fn f() {} };", "function `f` is inside another item");
}

#[test]
fn names_are_valid_and_distinct() {
    refused("#[microfaas::function] fn Shout() {}", "src/lib.rs:3: `Shout` is not a function name");
    refused("#[microfaas::function(name = \"a b\")] fn f() {}", "`a b` is not a function name");
    refused(
        "#[microfaas::function(name = \"first\")] fn f() {}",
        "function `first` is in src/lib.rs:2 and in src/lib.rs:3",
    );
}

#[test]
fn files_that_are_no_rust_are_named() {
    refused("fn f( {", "src/lib.rs:3: ");
    refused("fn f() { ' }", "src/lib.rs:3: ");
    assert_eq!(
        scan_files(&[("src/lib.rs", "#![forbid(unsafe_code)]\nfn f() {}")]).unwrap_err(),
        "src/lib.rs: no function with #[microfaas::function] in this crate"
    );
}
