// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The `famfs` command; also `mkfs.famfs`, `fsck.famfs` and `mount.famfs` by the name it is
//! called by.

mod commands;
mod output;
mod place;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use famfs::args::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse_from(arguments(std::env::args_os()));
    match commands::run(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            output::notice!("{:#}", failure.error);
            ExitCode::from(failure.code)
        }
    }
}

/// Makes the command out of the program's name where mkfs(8), fsck(8) or mount(8) calls it.
fn arguments(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.collect();
    let name = args.first().and_then(|name| Path::new(name).file_stem()).map(ToOwned::to_owned);
    let helper =
        args.first().is_some_and(|name| Path::new(name).extension() == Some("famfs".as_ref()));
    if let (true, Some(name)) = (helper, name) {
        args.insert(1, name);
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_program_is_a_command() {
        let run = |args: &[&str]| arguments(args.iter().map(OsString::from));
        assert_eq!(
            run(&["/sbin/mkfs.famfs", "-f", "/dev/x"]),
            ["/sbin/mkfs.famfs", "mkfs", "-f", "/dev/x"]
        );
        assert_eq!(run(&["mount.famfs"]), ["mount.famfs", "mount"]);
        assert_eq!(run(&["/usr/bin/famfs", "ls"]), ["/usr/bin/famfs", "ls"]);
    }
}
