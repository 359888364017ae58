//! Every folder that a reader meets has a README that fits a glance.

use std::collections::BTreeSet;

use crate::finding::Finding;
use crate::tree::Tree;

/// Folders whose every child is one unit of the code map.
const PARENTS: &[&str] = &["bindings", "core", "gateways", "tests"];
/// Units that are a folder at the top.
const TOPS: &[&str] = &["ffi", "fuzz", "include", "tests"];
const LINES_MAX: usize = 20;

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    folders(tree)
        .into_iter()
        .filter_map(|folder| {
            let path = format!("{folder}/README.md");
            match tree.text(&path).map(|text| text.lines().count()) {
                None => {
                    Some(Finding::whole(&path, "missing: what is here, what is not, how to run its tests"))
                }
                Some(0) => Some(Finding::whole(&path, "empty")),
                Some(lines) if lines > LINES_MAX => Some(Finding::whole(
                    &path,
                    format!("{lines} lines, limit {LINES_MAX}: more belongs in docs"),
                )),
                Some(_) => None,
            }
        })
        .collect()
}

fn folders(tree: &Tree) -> BTreeSet<String> {
    let mut folders = BTreeSet::new();
    for (path, _) in tree.files() {
        let mut parts = path.split('/');
        let (Some(top), Some(second)) = (parts.next(), parts.next()) else { continue };
        if TOPS.contains(&top) {
            folders.insert(top.to_owned());
        }
        if PARENTS.contains(&top) && parts.next().is_some() {
            folders.insert(format!("{top}/{second}"));
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_folder_needs_a_short_readme() {
        let long = "line\n".repeat(LINES_MAX + 1);
        let limit = "line\n".repeat(LINES_MAX);
        let tree = Tree::of(&[
            ("core/lane/src/lib.rs", ""),
            ("core/lane/README.md", &limit),
            ("core/node/src/lib.rs", ""),
            ("ffi/README.md", ""),
            ("tests/README.md", &long),
            ("tests/ci/10-fmt.sh", ""),
            ("Makefile", ""),
        ]);
        let files: Vec<String> = check(&tree).into_iter().map(|finding| finding.file).collect();
        assert_eq!(files, ["core/node/README.md", "ffi/README.md", "tests/README.md", "tests/ci/README.md"]);
    }
}
