// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An error for other programs: the form that both programs print with `--json`.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::iter;

use serde::Serialize;

/// Version of the form.
const VERSION: u32 = 1;

/// An error, its causes, and its exit code.
#[derive(Debug, Serialize)]
pub struct ErrorReport {
    version: u32,
    error: Item,
}

#[derive(Debug, Serialize)]
struct Item {
    message: String,
    causes: Vec<String>,
    exit_code: u8,
}

impl ErrorReport {
    /// The report of an error.
    pub fn new(error: &(dyn Error + 'static), exit_code: u8) -> Self {
        let causes = iter::successors(error.source(), |error| (*error).source());
        let causes = causes.map(ToString::to_string).collect();
        let item = Item { message: error.to_string(), causes, exit_code };
        Self { version: VERSION, error: item }
    }
}

/// An error and its causes in one line.
pub fn one_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Whether a command line asks for JSON: known before it is parsed, and even if it cannot be.
pub fn wants_json(args: &[OsString]) -> bool {
    args.iter().map(OsString::as_os_str).take_while(|arg| *arg != "--").any(is_json)
}

fn is_json(arg: &OsStr) -> bool {
    arg == "--json"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_report_has_the_whole_chain() {
        let inner = std::io::Error::other("inner; do `x`");
        let report = serde_json::to_value(ErrorReport::new(&Outer(inner), 3)).unwrap();
        let expected = serde_json::json!({
            "version": 1,
            "error": {
                "message": "outer",
                "causes": ["inner; do `x`"],
                "exit_code": 3,
            },
        });
        assert_eq!(report, expected);
    }

    #[test]
    fn json_is_asked_for_before_the_words_of_others() {
        let wants =
            |line: &str| wants_json(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(wants("famfs ls --json") && wants("famfs --unknown --json"));
        assert!(!wants("famfs ls") && !wants("vhost-famfs exec vm1 -- famfs df --json"));
    }
}
