// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Mounting and following the pool as the credentials ask for.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use appliance::attach::Attach;
use appliance::credentials::{self, ACCESS, DEFAULT_MOUNT_POINT, MOUNT_POINT, ROLE, VIEW};
use appliance::report;
use rustix::fs::CWD;
use rustix::mount::{MountFlags, OpenTreeFlags, UnmountFlags, mount_remount, open_tree, unmount};
use serde::Deserialize;

use crate::{confine, handover, pool};

/// The tools.
const FAMFS: &str = "/usr/bin/famfs";

/// What is of interest here of what `famfs attach --json` prints.
#[derive(Debug, Deserialize)]
struct Attached {
    device: PathBuf,
    role: String,
    files: u64,
}

/// Gives up what it does not need, mounts the pool, checks that it is what was asked for, shows it to all, and reports
/// success. Exits as famfs does.
pub fn attach() -> Result<ExitCode> {
    let start = report::uptime_ms().context("cannot read the time")?;
    confine::enter()?;
    let credentials = checked_credentials()?;
    let mount_point = mount_point(&credentials);
    let output = Command::new(FAMFS)
        .args(["attach", "--no-modules", "--json", "--mount-point", mount_point])
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {FAMFS}"))?;
    if !output.status.success() {
        let code = output.status.code().and_then(|code| u8::try_from(code).ok());
        return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
    }
    let attached: Attached =
        serde_json::from_slice(&output.stdout).context("cannot understand famfs attach")?;
    if let Err(error) = expect(&attached, &credentials) {
        unmount(mount_point, UnmountFlags::empty())
            .with_context(|| format!("{error}; and cannot unmount {mount_point}"))?;
        return Err(error);
    }
    if is_read_only(&credentials) {
        mount_remount(mount_point, MountFlags::RDONLY, "")
            .with_context(|| format!("cannot make {mount_point} read-only"))?;
    }
    show_to_all(mount_point)?;
    let Attached { device, role, files } = attached;
    println!("{} on {mount_point}: {role}, {files} files", device.display());
    if !is_read_only(&credentials) {
        pool::mark_followed()?;
    }
    let uptime_ms = report::uptime_ms().context("cannot read the time")?;
    let took_ms = uptime_ms.saturating_sub(start);
    report::leave(&Attach::Mounted { uptime_ms, took_ms }).context("cannot report the mount")?;
    Ok(ExitCode::SUCCESS)
}

/// What is mounted here may be seen by this process alone: it goes to where all see it.
fn show_to_all(mount_point: &str) -> Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, mount_point, flags)
        .with_context(|| format!("cannot open what is mounted on {mount_point}"))?;
    unmount(mount_point, UnmountFlags::empty())
        .with_context(|| format!("cannot unmount {mount_point}"))?;
    handover::give(&mount)
}

/// Becomes `famfs watch`. A pool that is mounted read-only cannot be followed: nothing can be made in it.
pub fn watch() -> Result<ExitCode> {
    let credentials = checked_credentials()?;
    if is_read_only(&credentials) {
        return Ok(ExitCode::SUCCESS);
    }
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
    credentials.get(ACCESS).is_some_and(|access| access == "read-only")
}

/// Compares the pool with what the host said it must be.
fn expect(attached: &Attached, credentials: &BTreeMap<String, String>) -> Result<()> {
    if let Some(role) = credentials.get(ROLE) {
        ensure!(
            attached.role == *role,
            "this VM is {} of the pool, {ROLE} says {role}; the master is the VM whose UUID the pool was \
             formatted with",
            attached.role
        );
    }
    if let Some(view) = credentials.get(VIEW) {
        let found = view_of(&attached.device)?;
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

    fn attached(device: &str) -> Attached {
        Attached { device: device.into(), role: "client".into(), files: 0 }
    }

    fn given(name: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn what_the_host_asks_for_is_compared() {
        let dax = attached("/dev/dax1.0");
        expect(&dax, &BTreeMap::new()).unwrap();
        expect(&dax, &given(ROLE, "client")).unwrap();
        expect(&dax, &given(VIEW, "devdax")).unwrap();
        expect(&attached("/dev/pmem0"), &given(VIEW, "raw")).unwrap();
        let error = expect(&dax, &given(ROLE, "master")).unwrap_err().to_string();
        assert!(
            error.starts_with("this VM is client of the pool, famfs.role says master"),
            "{error}"
        );
        let error = expect(&dax, &given(VIEW, "raw")).unwrap_err().to_string();
        assert_eq!(error, "the pool's view is devdax, famfs.view says raw");
        assert!(expect(&attached("/dev/sda"), &given(VIEW, "raw")).is_err());
    }

    #[test]
    fn the_pool_goes_where_the_host_says() {
        assert_eq!(mount_point(&BTreeMap::new()), "/mnt/famfs");
        assert_eq!(mount_point(&given(MOUNT_POINT, "/run/a")), "/run/a");
        assert!(is_read_only(&given(ACCESS, "read-only")));
        assert!(!is_read_only(&given(ACCESS, "read-write")));
    }
}
