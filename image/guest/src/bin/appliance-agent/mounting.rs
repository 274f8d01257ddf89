// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Mounts and follows the pool as the host requests.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use famfs::guest::search::{Search, SearchError};
use famfs::kernel::play::play;
use famfs::kernel::player::Task;
use famfs::store::role;
use famfs::sys::dax::Access;
use famfs::system::mounts;
use famfs::text::error_report::one_line;
use guest::report;
use protocol::attach::Attach;
use protocol::credentials::NO_POOL;

use crate::asked::Asked;
use crate::{confine, handover, pool};

/// The tools.
const FAMFS: &str = "/usr/bin/famfs";

/// How long to wait for the pool's device to appear.
const LIMIT: Duration = Duration::from_secs(30);

/// Drops unneeded privileges, finds the pool, checks that it is the requested one, creates its
/// files, lets the agent mount it for all, and reports success.
pub fn attach() -> Result<()> {
    let start = report::uptime_ms().context("cannot read the time")?;
    confine::enter()?;
    let asked = Asked::read()?;
    let mount_point = asked.mount_point();
    refuse_mounted(mount_point)?;
    let (device, mounted) = Search::begin(None, LIMIT).find().map_err(|error| match error {
        SearchError::Several { .. } => anyhow!(
            "{error}; give this VM only one of them, or set {NO_POOL} and choose with `famfs \
             attach --device`"
        ),
        error => error.into(),
    })?;
    let system = role::system_uuid()
        .inspect_err(|error| eprintln!("appliance-agent: client only: {}", one_line(error)))
        .ok();
    let volume = mounted.open(Access::Read, system)?;
    let role = volume.role();
    asked.compare(&device, role)?;
    let played = play(&volume, Task::default(), |_| {})?;
    for problem in &played.problems {
        eprintln!("appliance-agent: {}: {problem}", device.display());
    }
    ensure!(!played.damaged(), "{}: not all of its log could be replayed", device.display());
    if asked.is_read_only() {
        volume.mounted().set_read_only(true)?;
    }
    if asked.is_noexec() {
        volume.mounted().set_noexec(true)?;
    }
    handover::give(volume.mounted())?;
    println!(
        "{} on {mount_point}: {}, {} files",
        device.display(),
        role.name(),
        played.applied.files
    );
    pool::mark_followed()?;
    let uptime_ms = report::uptime_ms().context("cannot read the time")?;
    let took_ms = uptime_ms.saturating_sub(start);
    report::leave(&Attach::Mounted { uptime_ms, took_ms }).context("cannot report the mount")
}

/// Refuses to search if a pool is already mounted: the result would be the same pool, whose device
/// the kernel mounts only once, or would hide it.
fn refuse_mounted(mount_point: &str) -> Result<()> {
    match mounts::on(Path::new(mount_point))? {
        Some(mount) => bail!(
            "{} is already mounted on {mount_point}; to replay its log, use `famfs logplay \
             {mount_point}`",
            mount.source.display()
        ),
        None => Ok(()),
    }
}

/// Replaces this program by `famfs watch`.
pub fn watch() -> Result<ExitCode> {
    let asked = Asked::read()?;
    let error = Command::new(FAMFS).args(["watch", asked.mount_point()]).exec();
    Err(error).with_context(|| format!("cannot run {FAMFS}"))
}
