//! `docs/protocol.md` states the hash of the layout it describes, so neither changes without the other.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::finding::Finding;
use crate::tree::Tree;

const LAYOUT: &str = "core/lane/src/layout.rs";
const DOCUMENT: &str = "core/lane/docs/protocol.md";
/// A line of its own: the key, a space, 64 hexadecimal digits.
const KEY: &str = "layout-sha256:";

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let (Some(layout), Some(document)) = (tree.text(LAYOUT), tree.text(DOCUMENT)) else {
        return [LAYOUT, DOCUMENT]
            .into_iter()
            .filter(|path| tree.text(path).is_none())
            .map(|path| Finding::whole(path, "missing: the lane's layout and its document go together"))
            .collect();
    };
    let want = hash(layout);
    match stated(document) {
        None => vec![Finding::whole(DOCUMENT, format!("no line \"{KEY} {want}\""))],
        Some((_, found)) if found == want => Vec::new(),
        Some((line, _)) => vec![Finding::at(
            DOCUMENT,
            line,
            format!("{LAYOUT} changed: bring the document in line, then run tidy --fix-hash"),
        )],
    }
}

/// Writes the hash of the layout into the document, in place of the old one or as a new last line.
///
/// # Errors
/// When one of the two files is missing or the document cannot be written.
pub(crate) fn fix(tree: &Tree) -> Result<(), String> {
    let layout = tree.text(LAYOUT).ok_or_else(|| format!("{LAYOUT}: missing"))?;
    let document = tree.text(DOCUMENT).ok_or_else(|| format!("{DOCUMENT}: missing"))?;
    let fixed = with_hash(document, &hash(layout));
    if fixed == document { Ok(()) } else { tree.write(DOCUMENT, &fixed) }
}

fn with_hash(document: &str, hash: &str) -> String {
    let line = format!("{KEY} {hash}");
    let mut lines: Vec<&str> = document.lines().collect();
    match stated(document) {
        Some((at, _)) => lines[at - 1] = &line,
        None => lines.extend(["", &line]),
    }
    lines.join("\n") + "\n"
}

/// Line number (from 1) and value of the stated hash.
fn stated(document: &str) -> Option<(usize, &str)> {
    (1..).zip(document.lines()).find_map(|(n, line)| Some((n, line.trim().strip_prefix(KEY)?.trim())))
}

fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_sha256_of_the_file() {
        assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_changed_layout_is_found_and_fixed() {
        let good = with_hash("# Protocol\n", &hash("abc"));
        assert_eq!(check(&Tree::of(&[(LAYOUT, "abc"), (DOCUMENT, &good)])), []);
        let found = check(&Tree::of(&[(LAYOUT, "abd"), (DOCUMENT, &good)]));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].line, 3);
        let fixed = with_hash(&good, &hash("abd"));
        assert_eq!(fixed.lines().count(), good.lines().count());
        assert_eq!(check(&Tree::of(&[(LAYOUT, "abd"), (DOCUMENT, &fixed)])), []);
    }

    #[test]
    fn a_missing_file_or_line_is_found() {
        assert_eq!(check(&Tree::of(&[(LAYOUT, "abc"), (DOCUMENT, "# Protocol\n")])).len(), 1);
        assert_eq!(check(&Tree::of(&[(LAYOUT, "abc")]))[0].file, DOCUMENT);
        assert_eq!(check(&Tree::of(&[])).len(), 2);
    }
}
