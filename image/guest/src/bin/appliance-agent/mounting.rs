// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Mounting and following the pool as the credentials ask for.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use famfs::check::one_line;
use famfs::mounts;
use famfs::play::play;
use famfs::role::{self, Role};
use famfs::search::{Search, SearchError};
use famfs::sys::dax::Access;
use guest::report;
use protocol::attach::Attach;
use protocol::credentials::{
    self, ACCESS, DEFAULT_MOUNT_POINT, MOUNT_POINT, NO_POOL, READ_ONLY, ROLE, VIEW,
};

use crate::{confine, handover, pool};

/// The tools.
const FAMFS: &str = "/usr/bin/famfs";

/// Time for the pool's device to appear.
const LIMIT: Duration = Duration::from_secs(30);

/// Gives up what it does not need, finds the pool, checks that it is what was asked for, makes its files, lets the agent mount it
/// for all, and reports success.
pub fn attach() -> Result<()> {
    let start = report::uptime_ms().context("cannot read the time")?;
    confine::enter()?;
    let credentials = checked_credentials()?;
    let mount_point = mount_point(&credentials);
    refuse_mounted(mount_point)?;
    let (device, mounted) = Search::begin(None, LIMIT).find().map_err(|error| match error {
        SearchError::Several { .. } => anyhow!(
            "{error}; give this VM one of them, or set {NO_POOL} and choose with `famfs attach --device`"
        ),
        error => error.into(),
    })?;
    let system = role::system_uuid()
        .inspect_err(|error| eprintln!("appliance-agent: client only: {}", one_line(error)))
        .ok();
    let volume = mounted.open(Access::Read, system)?;
    let role = volume.role();
    expect(&device, role, &credentials)?;
    let played = play(&volume, false, |_| {})?;
    for problem in &played.problems {
        eprintln!("appliance-agent: {}: {problem}", device.display());
    }
    ensure!(!played.damaged(), "{}: not all of its log could be played", device.display());
    if is_read_only(&credentials) {
        volume.mounted().set_read_only(true)?;
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

/// Refuses to look for a pool where one is mounted: it would be its own, whose device the kernel mounts once, or hide it.
fn refuse_mounted(mount_point: &str) -> Result<()> {
    match mounts::on(Path::new(mount_point))? {
        Some(mount) => bail!(
            "{} is mounted on {mount_point} already; `famfs logplay {mount_point}` plays its log",
            mount.source.display()
        ),
        None => Ok(()),
    }
}

/// Becomes `famfs watch`.
pub fn watch() -> Result<ExitCode> {
    let credentials = checked_credentials()?;
    let error = Command::new(FAMFS).args(["watch", mount_point(&credentials)]).exec();
    Err(error).with_context(|| format!("cannot run {FAMFS}"))
}

/// The machine's credentials, or everything that is wrong with them.
fn checked_credentials() -> Result<BTreeMap<String, String>> {
    let credentials = credentials::of_this_machine();
    let wrong: Vec<String> = credentials
        .iter()
        .filter_map(|(name, value)| credentials::check(name, value).err())
        .map(|error| error.to_string())
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(credentials)
}

/// Where this machine's pool belongs.
pub fn mount_point_of_this_machine() -> Result<String> {
    Ok(mount_point(&checked_credentials()?).to_owned())
}

fn mount_point(credentials: &BTreeMap<String, String>) -> &str {
    credentials.get(MOUNT_POINT).map_or(DEFAULT_MOUNT_POINT, String::as_str)
}

fn is_read_only(credentials: &BTreeMap<String, String>) -> bool {
    credentials.get(ACCESS).is_some_and(|access| access == READ_ONLY)
}

/// Compares the pool with what the host said it must be.
fn expect(device: &Path, role: Role, credentials: &BTreeMap<String, String>) -> Result<()> {
    if let Some(wanted) = credentials.get(ROLE) {
        ensure!(
            role.name() == wanted,
            "this VM is {} of the pool, {ROLE} says {wanted}; the master is the VM whose UUID the pool was \
             formatted with",
            role.name()
        );
    }
    if let Some(view) = credentials.get(VIEW) {
        let found = view_of(device)?;
        ensure!(found == view, "the pool's view is {found}, {VIEW} says {view}");
    }
    Ok(())
}

fn view_of(device: &Path) -> Result<&'static str> {
    let name = device.file_name().unwrap_or_default().to_string_lossy();
    match (name.starts_with("dax"), name.starts_with("pmem")) {
        (true, _) => Ok("devdax"),
        (_, true) => Ok("raw"),
        _ => Err(anyhow!(std::io::Error::from(ErrorKind::InvalidData)))
            .with_context(|| format!("neither a dax nor a pmem device: {}", device.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(name: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn what_the_host_asks_for_is_compared() {
        let client = |device: &str, credentials: &BTreeMap<String, String>| {
            expect(Path::new(device), Role::Client, credentials)
        };
        let dax = "/dev/dax1.0";
        client(dax, &BTreeMap::new()).unwrap();
        client(dax, &given(ROLE, "client")).unwrap();
        client(dax, &given(VIEW, "devdax")).unwrap();
        client("/dev/pmem0", &given(VIEW, "raw")).unwrap();
        let error = client(dax, &given(ROLE, "master")).unwrap_err().to_string();
        assert!(
            error.starts_with("this VM is client of the pool, famfs.role says master"),
            "{error}"
        );
        let error = client(dax, &given(VIEW, "raw")).unwrap_err().to_string();
        assert_eq!(error, "the pool's view is devdax, famfs.view says raw");
        assert!(client("/dev/sda", &given(VIEW, "raw")).is_err());
    }

    #[test]
    fn the_pool_goes_where_the_host_says() {
        assert_eq!(mount_point(&BTreeMap::new()), "/mnt/famfs");
        assert_eq!(mount_point(&given(MOUNT_POINT, "/run/a")), "/run/a");
        assert!(is_read_only(&given(ACCESS, READ_ONLY)));
        assert!(!is_read_only(&given(ACCESS, "read-write")));
    }
}
