//! One thing that is wrong, and where.

use std::fmt;

/// A broken rule. Ordered by file, then line, so that a run prints the same text every time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Path from the repository's root.
    pub(crate) file: String,
    /// From 1; 0 when the finding is about the file as a whole.
    pub(crate) line: usize,
    /// What is wrong and what would be right, lower case, no full stop.
    pub(crate) what: String,
}

impl Finding {
    /// A finding at one line (from 1).
    pub(crate) fn at(file: &str, line: usize, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, what: what.into() }
    }

    /// A finding about a file or folder as a whole.
    pub(crate) fn whole(file: &str, what: impl Into<String>) -> Self {
        Self::at(file, 0, what)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.what),
            line => write!(f, "{}:{line}: {}", self.file, self.what),
        }
    }
}
