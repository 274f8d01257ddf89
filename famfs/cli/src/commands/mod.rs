// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The commands, one file each.

mod attach;
mod cat;
mod changes;
mod check;
mod chkread;
mod chmod;
mod chown;
mod clone;
mod compact;
mod cp;
mod creat;
mod damage;
mod df;
mod doctor;
mod dropped;
mod du;
mod dump;
mod export;
mod flush;
mod fsck;
mod getmap;
mod import;
mod ln;
mod logplay;
mod ls;
mod map;
mod map_item;
mod members;
mod mkdir;
mod mkfs;
mod mkmeta;
mod mode;
mod mount;
mod mv;
mod play;
mod publish;
mod reclaim;
mod rm;
mod role;
mod room_in_log;
mod rows;
mod stat;
mod sum;
mod takeover;
mod touch;
mod tree;
mod umount;
mod upgrade;
mod verify;
mod watch;

use anyhow::anyhow;
use famfs::format::path::RelPath;
use famfs::kernel::play::left_out;
use famfs::replay::Plan;
use famfs::text::json_name::Names;
use famfs_cli::args::{Cli, Command};

use self::room_in_log::Shortage;
use crate::output::{Failure, INTERRUPTED, Outcome, USAGE, notice};

/// Highest number of names that a message lists.
const LISTED: usize = 10;

/// Runs a command, once more if the log was full and then has room again. An error about damaged
/// media names the pool.
pub fn run(cli: &Cli) -> Outcome {
    run_command(cli).or_else(|failure| again(cli, failure)).map_err(|failure| match &cli.pool {
        Some(pool) if damage::is_cause(&failure.error) => {
            Failure { error: failure.error.context(format!("pool {}", pool.display())), ..failure }
        }
        _ => failure,
    })
}

fn again(cli: &Cli, failure: Failure) -> Outcome {
    let shortage = Shortage::of(cli.pool.as_deref(), &cli.command, &failure);
    match shortage.map(|shortage| shortage.wait()) {
        Some(Ok(true)) => run_command(cli),
        Some(Err(stopped)) if stopped.code == INTERRUPTED => Err(stopped),
        // Also if the wait failed: that the log is full is what the user can mend.
        _ => Err(failure),
    }
}

fn run_command(cli: &Cli) -> Outcome {
    let pool = cli.pool.as_deref();
    match &cli.command {
        Command::Mkfs(args) => mkfs::run(pool, args),
        Command::Mkdir(args) => mkdir::run(pool, args),
        Command::Creat(args) => creat::run(pool, args),
        Command::Cp(args) => cp::run(pool, args),
        Command::Export(args) => export::run(pool, args),
        Command::Import(args) => import::run(pool, args),
        Command::Ln(args) => ln::run(pool, args),
        Command::Mv(args) => mv::run(pool, args),
        Command::Chmod(args) => chmod::run(pool, args),
        Command::Chown(args) => chown::run(pool, args),
        Command::Touch(args) => touch::run(pool, args),
        Command::Rm(args) => rm::run(pool, args),
        Command::Reclaim(args) => reclaim::run(pool, args),
        Command::Compact(args) => compact::run(pool, args),
        Command::Role(args) => role::run(pool, args),
        Command::Takeover(args) => takeover::run(pool, args),
        Command::Members(args) => members::run(pool, args),
        Command::Publish(args) => publish::run(pool, args),
        Command::Upgrade(args) => upgrade::run(pool, args),
        Command::Ls(args) => ls::run(pool, args),
        Command::Fsck(args) => fsck::run(pool, args),
        Command::Cat(args) => cat::run(pool, args),
        Command::Stat(args) => stat::run(pool, args),
        Command::Df(args) => df::run(pool, args),
        Command::Du(args) => du::run(pool, args),
        Command::Tree(args) => tree::run(pool, args),
        Command::Map(args) => map::run(pool, args),
        Command::Doctor(args) => doctor::run(pool, args),
        Command::Dump(args) => dump::run(pool, args),
        Command::Verify(args) => verify::run(pool, args),
        Command::Getmap(args) => getmap::run(pool, args),
        Command::Clone(args) => clone::run(pool, args),
        Command::Sum(args) => sum::run(pool, args),
        _ if pool.is_some() => Err(Failure { code: USAGE, error: needs_mount() }),
        Command::Mount(args) => mount::run(args),
        Command::Umount(args) => umount::run(args),
        Command::Logplay(args) => logplay::run(args),
        Command::Watch(args) => watch::run(args),
        Command::Chkread(args) => chkread::run(args),
        Command::Mkmeta(args) => mkmeta::run(args),
        Command::Check(args) => check::run(args),
        Command::Flush(args) => flush::run(args),
        Command::Attach(args) => attach::run(args),
    }
}

fn needs_mount() -> anyhow::Error {
    anyhow!("this command works on a mounted famfs and takes no --pool")
}

/// Reports what the plan of a log leaves out. True if it leaves out anything.
fn warn_of_damage(plan: &Plan) -> bool {
    let left_out = left_out(plan);
    for problem in &left_out {
        notice!("{problem}");
    }
    !left_out.is_empty()
}

/// Reports which files were copied without their set-user-ID or set-group-ID bits.
fn report_set_id(paths: &[RelPath]) {
    if paths.is_empty() {
        return;
    }
    let shown = paths.iter().take(LISTED).map(|path| format!("\n  {path}"));
    let more = match paths.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!("\n  and {more} more"),
    };
    notice!(
        "{} copied without set-user-ID and set-group-ID bits, which guests can set; \
         --keep-set-id keeps them:{}{more}",
        paths.len(),
        shown.collect::<String>()
    );
}

/// The same for a report, which omits the field if there are none.
fn without_set_id_names(paths: &[RelPath]) -> Option<Names> {
    let names = || Names::new("without_set_id", paths.iter().map(RelPath::as_bytes));
    (!paths.is_empty()).then(names)
}
