//! One table of a file: its keys are taken one by one, and what is left at the end is a mistake.
//!
//! Serde would do the parsing, but its errors know neither the table's name nor a range, and make no suggestion.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::value::kind;

/// A file's name and text, to say where something is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) file: &'a Path,
    pub(super) text: &'a str,
}

impl<'a> Place<'a> {
    pub(super) fn parse(self) -> Result<Spanned<DeTable<'a>>, ConfigError> {
        DeTable::parse(self.text).map_err(|error| ConfigError::Syntax {
            file: self.file.to_owned(),
            line: self.line(error.span().map_or(0, |span| span.start)),
            message: error.message().lines().collect::<Vec<_>>().join(", "),
        })
    }

    /// Line of a byte, from 1.
    fn line(self, at: usize) -> usize {
        1 + self.text.bytes().take(at).filter(|b| *b == b'\n').count()
    }
}

/// A table that is being read.
#[derive(Debug)]
pub(super) struct Section<'a> {
    place: Place<'a>,
    name: &'a str,
    /// As messages say it: `in [node]`, `at the top level`.
    title: String,
    line: usize,
    table: &'a DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    pub(super) fn root(place: Place<'a>, table: &'a DeTable<'a>) -> Self {
        Self { place, name: "", title: "at the top level".to_owned(), line: 1, table, known: Vec::new() }
    }

    /// Last part of the table's name.
    pub(super) fn name(&self) -> &'a str {
        self.name
    }

    /// Where the table begins.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// Where the value of this key is, or the table begins that has none.
    pub(super) fn line_of(&self, key: &str) -> usize {
        self.table.get(key).map_or(self.line, |value| self.place.line(value.span().start))
    }

    /// The folder of the file.
    pub(super) fn folder(&self) -> PathBuf {
        self.place.file.parent().unwrap_or(Path::new("")).to_owned()
    }

    /// A value, if it is there. `parse` says what is wrong in words that follow the key's name.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        self.known.push(key);
        let Some(value) = self.table.get(key) else { return Ok(None) };
        parse(value.get_ref()).map(Some).map_err(|problem| {
            let line = self.place.line(value.span().start);
            self.value_error(line, key, problem)
        })
    }

    /// A value that must be there.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let line = self.line;
        self.get(key, parse)?.ok_or_else(|| self.value_error(line, key, "is missing".to_owned()))
    }

    /// A table within, if it is there.
    pub(super) fn section(&mut self, key: &'static str) -> Result<Option<Self>, ConfigError> {
        self.known.push(key);
        let Some((name, value)) = self.table.get_key_value(key) else { return Ok(None) };
        self.within(name, value).map(Some)
    }

    /// All tables within, whatever their names: for tables that hold nothing else.
    pub(super) fn sections(&self) -> Result<Vec<Self>, ConfigError> {
        self.table.iter().map(|(name, value)| self.within(name, value)).collect()
    }

    fn within(
        &self,
        name: &'a Spanned<std::borrow::Cow<'a, str>>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Result<Self, ConfigError> {
        let line = self.place.line(name.span().start);
        let key: &'a str = name.get_ref();
        let table = value.get_ref().as_table().ok_or_else(|| {
            let problem = format!("is {}, expected a table", kind(value.get_ref()));
            self.value_error(line, key, problem)
        })?;
        let title = match self.title.strip_prefix("in [").and_then(|t| t.strip_suffix(']')) {
            Some(parent) => format!("in [{parent}.{key}]"),
            None => format!("in [{key}]"),
        };
        Ok(Self { place: self.place, name: key, title, line, table, known: Vec::new() })
    }

    /// An array of tables, empty if it is not there.
    pub(super) fn list_of_sections(&mut self, key: &'static str) -> Result<Vec<Self>, ConfigError> {
        self.known.push(key);
        let Some(value) = self.table.get(key) else { return Ok(Vec::new()) };
        let wrong = |value: &Spanned<DeValue<'_>>| {
            let problem = format!("is {}, expected a list of tables", kind(value.get_ref()));
            self.value_error(self.place.line(value.span().start), key, problem)
        };
        let list = value.get_ref().as_array().ok_or_else(|| wrong(value))?;
        list.iter()
            .map(|item| {
                let table = item.get_ref().as_table().ok_or_else(|| wrong(item))?;
                let line = self.place.line(item.span().start);
                let title = format!("{} {key}", self.title);
                Ok(Self { place: self.place, name: key, title, line, table, known: Vec::new() })
            })
            .collect()
    }

    /// Call when all keys were taken.
    pub(super) fn finish(self) -> Result<(), ConfigError> {
        let first = self
            .table
            .keys()
            .filter(|key| !self.known.contains(&key.get_ref().as_ref()))
            .min_by_key(|key| key.span().start);
        let Some(key) = first else { return Ok(()) };
        Err(ConfigError::UnknownKey {
            file: self.place.file.to_owned(),
            line: self.place.line(key.span().start),
            key: key.get_ref().to_string(),
            section: self.title,
            known: self.known,
        })
    }

    pub(super) fn value_error(&self, line: usize, key: &str, problem: String) -> ConfigError {
        ConfigError::Value {
            file: self.place.file.to_owned(),
            line,
            key: key.to_owned(),
            section: self.title.clone(),
            problem,
        }
    }
}
