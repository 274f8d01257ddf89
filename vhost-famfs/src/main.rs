// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhost-famfs`: see [`vhost_famfs`] for what it does.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use vhost_famfs::args::{Cli, Config};

fn main() -> ExitCode {
    let result =
        Config::try_from(Cli::parse()).map_err(anyhow::Error::from).and_then(vhost_famfs::run::run);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            // Not eprintln: it panics if nobody reads.
            let _ = writeln!(io::stderr(), "vhost-famfs: {err:#}");
            ExitCode::FAILURE
        }
    }
}
