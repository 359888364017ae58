//! Nothing of one machine is committed: no path into somebody's home, no package source but the public one.

use crate::finding::Finding;
use crate::tree::Tree;

/// Put together here so that this file does not contain them.
const HOMES: &[&str] =
    &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/Use", "rs/")];
/// Folders of nobody in particular, as examples have them.
const NOBODY: &[&str] = &["me", "you", "user"];
/// The one source a `Cargo.lock` may name; packages of the workspace name none.
const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    tree.files()
        .flat_map(|(path, text)| {
            let lock = path.ends_with("Cargo.lock");
            (1..).zip(text.lines()).filter_map(move |(n, line)| {
                if let Some(home) = HOMES.iter().find(|home| names(line, home)) {
                    return Some(Finding::at(path, n, format!("a path of one machine ({home}…)")));
                }
                let source = line.strip_prefix("source = ").filter(|_| lock)?;
                (source.trim_matches('"') != SOURCE).then(|| {
                    Finding::at(path, n, format!("package source {source}, only crates.io is allowed"))
                })
            })
        })
        .collect()
}

/// Whether `line` has `home` as the beginning of a path into somebody's folder, not in the middle of a longer path or a URL.
fn names(line: &str, home: &str) -> bool {
    line.match_indices(home).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let rest = &line[at + home.len()..];
        let folder = rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        let begins = !before.is_some_and(|c| c.is_alphanumeric() || "./_-".contains(c));
        begins && !folder.is_empty() && !NOBODY.contains(&folder)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_are_found_and_lookalikes_are_not() {
        for (line, expect) in [
            (format!("cd {}ann", HOMES[0]), 1),
            (format!("cd {}me/x", HOMES[0]), 0),
            (format!("\"{}.cargo\"", HOMES[1]), 0),
            (format!("x={}main/x", HOMES[2]), 1),
            (format!("https://example.org{}x", HOMES[0]), 0),
            (format!("core{}er", HOMES[2]), 0),
            (format!("<dir>{} …", HOMES[0]), 0),
        ] {
            assert_eq!(check(&Tree::of(&[("a.md", &line)])).len(), expect, "{line}");
        }
    }

    #[test]
    fn a_lock_file_names_the_public_registry_only() {
        let text = format!("source = \"{SOURCE}\"\nsource = \"git+ssh://example.org/x\"\n");
        let found = check(&Tree::of(&[("fuzz/Cargo.lock", &text), ("notes.txt", &text)]));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].file.as_str(), found[0].line), ("fuzz/Cargo.lock", 2));
    }
}
