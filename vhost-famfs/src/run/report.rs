// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What other programs read: reports and errors as JSON, in the forms of
//! docs/reference/vhost-famfs.schema.json.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use famfs::text::error_report::ErrorReport;
use famfs::text::terminal::Escaping;
use serde::Serialize;

use super::{notice, say};

/// Version of all reports. While it stays, fields are added, never changed or removed.
const VERSION: u32 = 1;

/// Exit code for a command line that cannot be carried out, as clap's.
pub const WRONG_COMMAND_LINE: u8 = 2;

/// A report with its version.
#[derive(Serialize)]
struct Versioned<R> {
    version: u32,
    #[serde(flatten)]
    report: R,
}

/// Prints a report on one line.
pub(super) fn json(report: &impl Serialize) -> Result<()> {
    let report = Versioned { version: VERSION, report };
    say(serde_json::to_string(&report).context("cannot write the report as JSON")?)
}

/// Prints a report that is a list, under the name of what is in it.
pub(super) fn json_list<R: Serialize>(name: &str, reports: &[R]) -> Result<()> {
    json(&BTreeMap::from([(name, reports)]))
}

/// Tells why the program failed, once: on standard error, and on standard output if that is for
/// programs.
pub fn fail(error: &anyhow::Error, code: u8, json: bool) -> ExitCode {
    notice(format_args!("{error:#}"));
    if json {
        print_error(error, code);
    }
    ExitCode::from(code)
}

/// Gives clap's answer to a command line that runs no command: a help, or what is wrong with it.
pub fn answer(answer: &clap::Error, json: bool) -> ExitCode {
    if !answer.use_stderr() {
        // A reader that has seen enough of a help is no error.
        let _ = answer.print();
        return ExitCode::SUCCESS;
    }
    // Without styles: what others chose may stand in it, as of `vhost-famfs pool rm *`.
    let text = answer.render().to_string();
    let mut out = Escaping::new(io::stderr());
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.finish());
    if json {
        let message = text.lines().next().unwrap_or_default();
        let message = message.strip_prefix("error: ").unwrap_or(message).to_owned();
        print_error(&anyhow::Error::msg(message), WRONG_COMMAND_LINE);
    }
    ExitCode::from(WRONG_COMMAND_LINE)
}

fn print_error(error: &anyhow::Error, code: u8) {
    // If it cannot be written, the exit code stands for it.
    if let Ok(text) = serde_json::to_string(&ErrorReport::new(&**error, code)) {
        let _ = say(text);
    }
}
