// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Positions in the text of a cluster file, and errors in the structure of its tables.

use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A position in a cluster file, and what is wrong there.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The line's text.
    pub text: String,
    /// What is wrong.
    pub message: String,
    /// The way out.
    pub hint: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)?;
        if !self.text.trim().is_empty() {
            write!(f, "\n  {}\n  {}^", self.text, " ".repeat(self.column - 1))?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// An error at a range of bytes of the file.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) at: Range<usize>,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Fault {
    pub(super) fn new(at: &Range<usize>, message: impl Into<String>, hint: &str) -> Self {
        Self { at: at.clone(), message: message.into(), hint: Some(hint.to_owned()) }
    }
}

/// The line and column of a fault.
pub(super) fn place(text: &str, fault: Fault) -> Place {
    let Fault { at, message, hint } = fault;
    let start = (0..=at.start.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    let start = start.unwrap_or(0);
    let begin = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[..begin].matches('\n').count() + 1;
    let column = text[begin..start].chars().count() + 1;
    let shown = text[begin..].lines().next().unwrap_or_default();
    // A tab would shift the mark away from its place.
    let shown: String = shown.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Place { line, column, text: shown, message, hint }
}

/// Checks which tables there are, and whether each may occur more than once.
///
/// # Errors
/// The first error. Text that is not TOML at all is not reported here.
pub(super) fn check_tables(text: &str) -> Result<(), Fault> {
    let Ok(document) = DeTable::parse(text) else { return Ok(()) };
    for (key, value) in document.get_ref() {
        let name = key.get_ref().as_ref();
        match (name, value.get_ref()) {
            ("vm" | "import", DeValue::Table(_)) => {
                let message = format!("[{name}] is a single table, expected [[{name}]]");
                let hint = format!("write [[{name}]]: a cluster file can have several");
                return Err(Fault::new(&key.span(), message, &hint));
            }
            ("pool", DeValue::Array(_)) => {
                let hint = "write [pool]: a cluster has one pool";
                return Err(Fault::new(&key.span(), "[[pool]] is a list, expected [pool]", hint));
            }
            ("import", DeValue::Array(imports)) => {
                let without = |import: &&Spanned<DeValue<'_>>| {
                    import.get_ref().as_table().is_some_and(|table| !table.contains_key("from"))
                };
                if let Some(import) = imports.iter().find(without) {
                    let hint = "add from = \"...\": the directory or tar archive to import";
                    return Err(Fault::new(&import.span(), "this import has no `from`", hint));
                }
            }
            ("name" | "master" | "log-limit" | "restart" | "pool" | "vm" | "import", _) => {}
            _ => {
                let hint = "use the keys name, master, log-limit and restart, and the tables \
                            [pool], [[import]] and [[vm]]";
                return Err(Fault::new(
                    &key.span(),
                    format!("unknown table or key {name:?}"),
                    hint,
                ));
            }
        }
    }
    Ok(())
}

/// The range of a key in a table, or of the table itself; `index` counts the tables of a list.
pub(super) fn range_of(text: &str, table: &str, index: usize, key: &str) -> Option<Range<usize>> {
    let document = DeTable::parse(text).ok()?;
    let found = document.get_ref().get(table)?;
    let found = match found.get_ref() {
        DeValue::Array(list) => list.get(index)?,
        _ => found,
    };
    let value = found.get_ref().as_table().and_then(|table| table.get(key));
    Some(value.map_or_else(|| found.span(), Spanned::span))
}
