// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhost-famfs`: see [`vhost_famfs`] for what it does.

use std::io::{self, Write};
use std::process::ExitCode;

use vhost_famfs::args::{Cli, Config, complete};

/// Exit code for a command line that cannot be carried out, as clap's.
const WRONG_COMMAND_LINE: u8 = 2;

fn main() -> ExitCode {
    complete::answer();
    let (result, code) = match Config::try_from(Cli::read(std::env::args_os())) {
        Ok(config) => (vhost_famfs::run::run(config), ExitCode::FAILURE),
        Err(err) => (Err(err.into()), ExitCode::from(WRONG_COMMAND_LINE)),
    };
    match result {
        Ok(code) => code,
        Err(err) => {
            // Not eprintln: it panics if nobody reads.
            let _ = writeln!(io::stderr(), "vhost-famfs: {err:#}");
            code
        }
    }
}
