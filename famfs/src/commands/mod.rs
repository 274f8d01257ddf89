// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The commands, one file each.

mod attach;
mod cp;
mod creat;
mod dump;
mod fsck;
mod getmap;
mod logplay;
mod ls;
mod mkdir;
mod mkfs;
mod mount;
mod play;
mod sum;
mod umount;
mod verify;

use anyhow::anyhow;
use famfs::args::{Cli, Command};
use famfs::check::one_line;
use famfs::replay::Plan;

use crate::output::{Outcome, notice};

/// Runs a command.
pub fn run(cli: &Cli) -> Outcome {
    let pool = cli.pool.as_deref();
    match &cli.command {
        Command::Mkfs(args) => mkfs::run(pool, args),
        Command::Mkdir(args) => mkdir::run(pool, args),
        Command::Creat(args) => creat::run(pool, args),
        Command::Cp(args) => cp::run(pool, args),
        Command::Ls(args) => ls::run(pool, args),
        Command::Fsck(args) => fsck::run(pool, args),
        Command::Dump(args) => dump::run(pool, args),
        Command::Verify(args) => verify::run(pool, args),
        Command::Sum(args) => sum::run(pool, args),
        command if pool.is_some() => Err(needs_mount(command).into()),
        Command::Mount(args) => mount::run(args),
        Command::Umount(args) => umount::run(args),
        Command::Logplay(args) => logplay::run(args),
        Command::Getmap(args) => getmap::run(args),
        Command::Attach(args) => attach::run(args),
    }
}

fn needs_mount(command: &Command) -> anyhow::Error {
    match command {
        Command::Getmap(_) => anyhow!("getmap asks the kernel; for a pool use `ls --json`"),
        _ => anyhow!("this command works on a mounted famfs and takes no --pool"),
    }
}

/// Tells what of a log is left out of its plan. True if that is anything.
fn warn_of_damage(plan: &Plan) -> bool {
    for refused in &plan.refused {
        notice!("left out: {}", one_line(refused));
    }
    if let Some(damage) = &plan.stopped {
        notice!("the log ends early: {}", one_line(damage));
    }
    !plan.refused.is_empty() || plan.stopped.is_some()
}
