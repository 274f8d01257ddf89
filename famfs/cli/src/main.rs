// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The `famfs` command. Under the name `mkfs.famfs`, `fsck.famfs`, `mount.famfs` or `umount.famfs`
//! it runs that command.

mod commands;
mod oci;
mod operands;
mod output;
mod place;
mod reclaiming;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::builder::{FalseyValueParser, TypedValueParser};
use famfs::text::error_report::wants_json;
use famfs_cli::args::{COHERENT, Cli, Command, MountHelper, UmountHelper};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let json = wants_json(&args);
    let result = match parse(args) {
        Ok(cli) => {
            famfs::sys::cache::set_coherent(cli.coherent);
            famfs::media::allow_foreign_pools(cli.foreign_pool);
            commands::run(&cli)
        }
        Err(answer) => output::answer(&answer, json),
    };
    ExitCode::from(result.unwrap_or_else(|failure| output::fail(&failure, json)))
}

/// Asks the reference's programs for help: getopt(3) does not know it, so they print their usage.
const QUESTION: &str = "-?";

/// Parses the command line. mkfs(8), fsck(8) and mount(8) choose the command by the program's name.
fn parse(mut args: Vec<OsString>) -> Result<Cli, clap::Error> {
    for arg in args.iter_mut().filter(|arg| *arg == QUESTION) {
        *arg = "--help".into();
    }
    Ok(match helper(&args) {
        // mount(8) and umount(8) have their own protocols for helpers.
        Some("mount") => {
            let args = MountHelper::try_parse_from(args)?;
            Cli {
                pool: None,
                foreign_pool: false,
                coherent: coherent_by_environment(),
                command: Command::Mount(args.into()),
            }
        }
        Some("umount") => {
            let args = UmountHelper::try_parse_from(args)?;
            Cli {
                pool: None,
                foreign_pool: false,
                coherent: false,
                command: Command::Umount(args.into()),
            }
        }
        Some(command) => {
            // So that the usage is a command line that works.
            let command = ["famfs".into(), OsString::from(command)];
            Cli::try_parse_from(command.iter().chain(&args[1..]))?
        }
        None => Cli::try_parse_from(args)?,
    })
}

/// The command in the program's name: `mkfs` for `/sbin/mkfs.famfs`.
fn helper(args: &[OsString]) -> Option<&str> {
    let name = Path::new(args.first()?);
    let name = name.file_stem().filter(|_| name.extension() == Some("famfs".as_ref()));
    name.and_then(OsStr::to_str)
}

/// `--coherent` as the environment sets it, for callers that do not use the full parser.
fn coherent_by_environment() -> bool {
    std::env::var_os(COHERENT).is_some_and(|value| means_coherent(&value))
}

/// Whether a value of [`COHERENT`] sets the option, by the same rule as the full parser.
fn means_coherent(value: &OsStr) -> bool {
    FalseyValueParser::new().parse_ref(&clap::Command::new("famfs"), None, value).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(args: &[&str]) -> Command {
        parse(args.iter().map(OsString::from).collect()).unwrap().command
    }

    #[test]
    fn the_name_of_the_program_is_a_command() {
        let made = command(&["/sbin/mkfs.famfs", "-f", "/dev/x"]);
        assert!(matches!(made, Command::Mkfs(args) if args.force));
        assert!(matches!(command(&["/sbin/fsck.famfs", "/dev/x"]), Command::Fsck(_)));
        assert!(matches!(command(&["/usr/bin/famfs", "ls", "/x"]), Command::Ls(_)));
    }

    #[test]
    fn the_variable_has_one_meaning() {
        for (value, coherent) in
            [("1", true), ("yes", true), ("0", false), ("false", false), ("", false)]
        {
            assert_eq!(means_coherent(value.as_ref()), coherent, "{value:?}");
        }
    }

    #[test]
    fn mount_8_calls_its_helper_in_its_own_way() {
        let line = ["mount.famfs", "/dev/x", "/mnt", "-sfv", "-n", "-o", "ro,noatime"];
        let Command::Mount(mount) = command(&line) else { panic!("no mount") };
        assert!(mount.dry_run && mount.sloppy && mount.verbose);
        assert_eq!(mount.options, ["ro", "noatime"]);
    }

    #[test]
    fn umount_8_calls_its_helper_in_its_own_way() {
        let line = ["umount.famfs", "/mnt", "-nlfvr", "-N", "/proc/1/ns/mnt", "-t", "famfs"];
        let Command::Umount(umount) = command(&line) else { panic!("no umount") };
        assert!(umount.lazy && !umount.dry_run);
    }
}
