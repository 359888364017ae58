//! What is wrong with a file.

use std::path::PathBuf;

use thiserror::Error;

/// Prints as one line, which begins with the file and the line in it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    #[error("{}: cannot read it: {source}", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("{}:{line}: {message}", file.display())]
    Syntax { file: PathBuf, line: usize, message: String },
    #[error("{}:{line}: unknown key `{key}` {section}{}", file.display(), known_text(key, known))]
    UnknownKey { file: PathBuf, line: usize, key: String, section: String, known: Vec<&'static str> },
    #[error("{}:{line}: `{key}` {section} {problem}", file.display())]
    Value { file: PathBuf, line: usize, key: String, section: String, problem: String },
    #[error("{}:{line}: [function.{name}] is for a function that no module has{}", file.display(), suggest_text(suggestion.as_deref()))]
    UnknownFunction { file: PathBuf, line: usize, name: String, suggestion: Option<String> },
    #[error("{}:{line}: a route leads to `{name}`, a function that no module has{}", file.display(), suggest_text(suggestion.as_deref()))]
    UnknownRouteFunction { file: PathBuf, line: usize, name: String, suggestion: Option<String> },
}

fn suggest_text(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |s| format!(", did you mean `{s}`?"))
}

/// The one that was probably meant, else all.
fn known_text(key: &str, known: &[&'static str]) -> String {
    match suggest(key, known.iter().copied()) {
        Some(key) => suggest_text(Some(&key)),
        None => format!(", there are: {}", known.join(", ")),
    }
}

/// The known word that was probably meant.
pub(crate) fn suggest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate.to_owned())
}
