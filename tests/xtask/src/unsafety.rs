//! `unsafe` is written only in files that say why: [`LIST`] has a line for each.

use std::collections::BTreeSet;

use crate::finding::Finding;
use crate::lexer;
use crate::tree::Tree;

/// `PATH REASON`, one a line; a path that ends in `/` covers the folder. `#` opens a comment.
const LIST: &str = "tests/xtask/unsafe-allowed.txt";
/// A reason shorter than this says nothing.
const REASON_CHARS_MIN: usize = 20;

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(list) = tree.text(LIST) else {
        return vec![Finding::whole(LIST, "missing")];
    };
    let mut findings = Vec::new();
    let mut allowed: Vec<(&str, usize)> = Vec::new();
    for (line, text) in (1..).zip(list.lines()) {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (path, reason) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        if reason.trim().chars().count() < REASON_CHARS_MIN {
            findings.push(Finding::at(
                LIST,
                line,
                format!("{path}: the reason why it needs unsafe is missing"),
            ));
        }
        allowed.push((path, line));
    }
    let mut used = BTreeSet::new();
    for (path, text) in tree.files().filter(|(path, _)| path.ends_with(".rs")) {
        let Some(line) = first_unsafe(text) else { continue };
        match allowed.iter().find(|(entry, _)| covers(entry, path)) {
            Some((entry, _)) => {
                used.insert(*entry);
            }
            None => {
                findings.push(Finding::at(path, line, format!("unsafe in a file that {LIST} does not name")))
            }
        }
    }
    for (entry, line) in allowed.iter().filter(|(entry, _)| !used.contains(entry)) {
        findings.push(Finding::at(
            LIST,
            *line,
            format!("{entry}: no unsafe there any more, remove the line"),
        ));
    }
    findings
}

fn covers(entry: &str, path: &str) -> bool {
    if entry.ends_with('/') { path.starts_with(entry) } else { path == entry }
}

/// Line of the first `unsafe` keyword in code, from 1. `unsafe_code` and the like are other words.
fn first_unsafe(source: &str) -> Option<usize> {
    let code = lexer::code_only(source);
    (1..)
        .zip(code.lines())
        .find(|(_, line)| line.split(|c| !lexer::is_word(c)).any(|word| word == "unsafe"))
        .map(|(n, _)| n)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(files: &[(&str, &str)]) -> Vec<String> {
        check(&Tree::of(files)).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn the_keyword_counts_and_its_namesakes_do_not() {
        assert_eq!(first_unsafe("#![forbid(unsafe_code)]\n// unsafe\nlet s = \"unsafe\";"), None);
        assert_eq!(first_unsafe("\n    unsafe { f() }"), Some(2));
        assert_eq!(first_unsafe("#[unsafe(no_mangle)]"), Some(1));
    }

    #[test]
    fn only_listed_files_pass() {
        let list = "# files\nsys/ every system call of the project is here\na.rs the reason is long enough\n";
        let found = run(&[
            (LIST, list),
            ("a.rs", "unsafe fn f() {}"),
            ("sys/deep/b.rs", "unsafe {}"),
            ("c.rs", "//\nunsafe {}"),
            ("d.rs", "fn safe() {}"),
        ]);
        assert_eq!(found, [format!("c.rs:2: unsafe in a file that {LIST} does not name")]);
    }

    #[test]
    fn stale_lines_and_empty_reasons_are_found() {
        let found = run(&[(LIST, "a.rs because\nb.rs the reason is long enough\n"), ("a.rs", "unsafe {}")]);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("a.rs: the reason"), "{found:?}");
        assert!(found[1].contains("b.rs: no unsafe there"), "{found:?}");
    }

    #[test]
    fn a_tree_without_a_list_is_a_finding() {
        assert_eq!(run(&[]), [format!("{LIST}: missing")]);
    }
}
