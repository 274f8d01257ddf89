// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The program `vhost-famfs`; see the library [`vhost_famfs`].

mod run;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::CompleteEnv;

use crate::run::report::{WRONG_COMMAND_LINE, answer, fail};
use famfs::text::error_report::wants_json;
use vhost_famfs::args::{Cli, Config, complete};

/// Exit code of a failure that has no code of its own.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    // If a shell asks for completions, this answers and ends the program.
    CompleteEnv::with_factory(Cli::command).var(complete::VARIABLE).complete();
    let args: Vec<OsString> = std::env::args_os().collect();
    let json = wants_json(&args);
    let cli = match Cli::read(args) {
        Ok(cli) => cli,
        Err(said) => return answer(&said, json),
    };
    match Config::try_from(cli) {
        Ok(config) => run::run(config).unwrap_or_else(|err| fail(&err, FAILED, json)),
        Err(err) => fail(&err.into(), WRONG_COMMAND_LINE, json),
    }
}
