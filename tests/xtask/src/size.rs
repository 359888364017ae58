//! A file is one idea: over [`LINES_MAX`] lines, split it, or open with the reason why not.

use crate::finding::Finding;
use crate::tree::Tree;

/// STYLE §4: aim at 100 to 400; above this a reader needs a reason.
const LINES_MAX: usize = 800;
/// A longer file says why within its first lines, in these words.
const EXCUSE: &str = "over 800 lines because";
const EXCUSE_WITHIN_LINES: usize = 12;
const SOURCES: &[&str] = &[".rs", ".c", ".h", ".py", ".pyi", ".sh"];
/// Written by a program, read by one.
const GENERATED: &[&str] = &["include/microfaas.h"];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    tree.files()
        .filter(|(path, _)| SOURCES.iter().any(|ending| path.ends_with(ending)) && !GENERATED.contains(path))
        .filter_map(|(path, text)| {
            let lines = text.lines().count();
            let excused = text.lines().take(EXCUSE_WITHIN_LINES).any(|line| line.contains(EXCUSE));
            (lines > LINES_MAX && !excused).then(|| {
                Finding::whole(
                    path,
                    format!("{lines} lines, limit {LINES_MAX}: split it, or open with \"{EXCUSE} …\""),
                )
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_source_needs_a_reason() {
        let limit = "//\n".repeat(LINES_MAX);
        let long = "//\n".repeat(LINES_MAX + 1);
        let excused = format!("//! This file is {EXCUSE} a table is one idea.\n{long}");
        let late = format!("{long}// {EXCUSE} nobody looks here\n");
        let tree = Tree::of(&[
            ("a.rs", &limit),
            ("b.rs", &long),
            ("c.rs", &excused),
            ("d.c", &late),
            ("e.md", &long),
            ("include/microfaas.h", &long),
        ]);
        let files: Vec<String> = check(&tree).into_iter().map(|finding| finding.file).collect();
        assert_eq!(files, ["b.rs", "d.c"]);
    }
}
