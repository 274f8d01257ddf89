// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Output for other programs: reports and errors as JSON, as docs/reference/vhost-famfs.schema.json
//! describes them.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use famfs::text::error_report::ErrorReport;
use famfs::text::terminal::Escaping;
use serde::Serialize;

use super::{notice, say};

/// Version of all reports. While the version stays the same, fields may be added, but not changed
/// or removed.
const VERSION: u32 = 1;

/// Exit code for an invalid command line, the same as clap's.
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

/// Prints a list report, with `name` as the key of the list.
pub(super) fn json_list<R: Serialize>(name: &str, reports: &[R]) -> Result<()> {
    json(&BTreeMap::from([(name, reports)]))
}

/// Prints why the program failed, once: to standard error, and with `json` also to standard output.
pub fn fail(error: &anyhow::Error, code: u8, json: bool) -> ExitCode {
    notice(format_args!("{error:#}"));
    if json {
        print_error(error, code);
    }
    ExitCode::from(code)
}

/// Prints clap's answer to a command line that runs no command: the help, or what is wrong with it.
pub fn answer(answer: &clap::Error, json: bool) -> ExitCode {
    if !answer.use_stderr() {
        // A reader that has closed the pipe has read enough of a help.
        let _ = answer.print();
        return ExitCode::SUCCESS;
    }
    // Without styles: the text may quote names that others chose, for example with `vhost-famfs
    // pool rm *`.
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
    // If it cannot be written, the exit code still tells.
    if let Ok(text) = serde_json::to_string(&ErrorReport::new(&**error, code)) {
        let _ = say(text);
    }
}
