// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Examines a guest, from its kernel to the 2 MiB mapping of a file.

use std::fs;
use std::path::Path;

use famfs::format::ALLOC_UNIT;
use famfs::guest::{self, Finding as Device};
use famfs::kernel::mount::Mounted;
use famfs::kernel::play::play;
use famfs::kernel::player::Task;
use famfs::kernel::volume::MountedVolume;
use famfs::replay::tree::object::ObjectKind;
use famfs::replay::{Contents, Plan};
use famfs::store::lease;
use famfs::store::role::{self, Role};
use famfs::sys::dax::Access;
use famfs::system::faults::FaultCounter;
use famfs::system::mounts::{self, MountEntry};
use famfs::system::watcher::Watcher;
use famfs::text::error_report::one_line;
use famfs::write::volume::Volume;

use super::{Finding, contents};
use crate::output::human;

/// The kernel on which famfs.ko works on pmem block devices only, and the first on which it works
/// on dax devices too. It does not build for the kernels in between.
const PMEM_KERNEL: (u32, u32) = (6, 12);
const DAX_KERNEL: (u32, u32) = (7, 2);
/// The appliance makes this file if its machine must not mount a pool: it has a slice, or nothing.
const NO_POOL: &str = "/run/appliance/credentials/famfs.no-pool";
/// Highest number of 2 MiB units of a file that are touched to see how they are mapped.
const TOUCHED: u64 = 16;

/// Examines a guest and one of its mounts.
pub fn examine(path: Option<&Path>) -> Vec<Finding> {
    let mount = match path {
        Some(path) => mounts::locate(path).map(|found| Some(found.mount)),
        None => mounts::read().map(|table| table.into_iter().find(|m| m.fs_type == "famfs")),
    };
    let mount = match mount {
        Ok(mount) => mount,
        Err(err) => {
            let failed = Finding::failed("mount", one_line(&err), "famfs attach");
            return vec![kernel(None), module(), failed];
        }
    };
    let mut findings = vec![kernel(mount.as_ref())];
    let Some(mount) = mount else {
        if Path::new(NO_POOL).exists() {
            let found = "none: this machine was started without one (credential famfs.no-pool)";
            findings.push(Finding::ok("mount", found));
            return findings;
        }
        findings.push(module());
        findings.extend(devices(None));
        findings.push(Finding::failed("mount", "no famfs is mounted", "famfs attach"));
        return findings;
    };
    findings.push(module());
    findings.extend(devices(Some(&mount)));
    let (source, point) = (mount.source.display(), mount.mount_point.display());
    findings.push(Finding::ok("mount", format!("{source} on {point}")));
    match open(&mount) {
        Ok(volume) => contents(&mount, &volume, &mut findings),
        Err(err) => {
            let mend = format!("famfs umount {point}; famfs attach");
            findings.push(Finding::failed("media", format!("{err:#}"), mend));
        }
    }
    findings
}

/// Whether the kernel is new enough for the mounted device, or without one for any device.
fn kernel(mount: Option<&MountEntry>) -> Finding {
    let needed = match mount {
        Some(mount) if !is_dax(&mount.source) => PMEM_KERNEL,
        _ => DAX_KERNEL,
    };
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    match parse_release(&release) {
        Some(version) if version >= DAX_KERNEL || version == needed => {
            Finding::ok("kernel", release)
        }
        Some(PMEM_KERNEL) => Finding::warning(
            "kernel",
            format!("{release}: works only with pools of the raw view, as /dev/pmem"),
            "boot Linux 7.2 or newer",
        ),
        _ => Finding::failed(
            "kernel",
            format!("{release}, expected 6.12, or 7.2 or newer"),
            "boot Linux 7.2 or newer",
        ),
    }
}

fn is_dax(device: &Path) -> bool {
    device.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"dax"))
}

/// Major and minor number of a kernel's release.
fn parse_release(release: &str) -> Option<(u32, u32)> {
    let (major, rest) = release.split_once('.')?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((major.parse().ok()?, rest[..end].parse().ok()?))
}

fn module() -> Finding {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !known.lines().any(|line| line.split_whitespace().last() == Some("famfs")) {
        let found = "the kernel has no famfs file system";
        return Finding::failed("module", found, "modprobe famfs");
    }
    let loaded = Path::new("/sys/module/famfs").exists();
    Finding::ok("module", if loaded { "famfs.ko is loaded" } else { "famfs is part of the kernel" })
}

/// The memory devices; a mounted one is reported as such.
fn devices(mount: Option<&MountEntry>) -> Vec<Finding> {
    let dax = guest::dax_devices();
    let pmem = guest::pmem_devices();
    if dax.is_empty() && pmem.is_empty() {
        let found = "no /dev/dax and no /dev/pmem: does this VM have a virtio-pmem device?";
        let mend = "modprobe -a virtio_pmem nd_pmem dax_pmem";
        return vec![Finding::failed("device", found, mend)];
    }
    let is_mounted =
        |name: &str| mount.is_some_and(|mount| mount.source == Path::new("/dev").join(name));
    let dax = dax.iter().map(|name| dax_device(name, is_mounted(name), mount.is_some()));
    let pmem = pmem.iter().map(|name| {
        let found = format!("{name}: a pmem block device");
        match guest::other_use(name) {
            _ if is_mounted(name) => Finding::ok("device", found),
            Some(other) => Finding::ok("device", format!("{found}, {other}; no pool")),
            None => unmounted(name, found, mount.is_some(), false),
        }
    });
    dax.chain(pmem).collect()
}

fn dax_device(name: &str, is_mounted: bool, has_pool: bool) -> Finding {
    let dir = Path::new("/sys/bus/dax/devices").join(name);
    let number = |file: &str| -> Option<u64> {
        fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
    };
    let driver = fs::read_link(dir.join("driver")).ok();
    let driver = driver.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy());
    let size = number("size").map_or_else(|| "unknown size".to_owned(), human);
    let found = format!("{name}: {size}, driver {}", driver.as_deref().unwrap_or("none"));
    if driver.as_deref() != Some("fsdev_dax") {
        let mend = format!("famfs attach --device /dev/{name}");
        return Finding::failed("device", format!("{found}, expected fsdev_dax"), mend);
    }
    if let Some(align) = number("align").filter(|align| align % ALLOC_UNIT != 0) {
        let found = format!("{found}, aligned to {align} bytes, expected 2 MiB");
        return Finding::failed("device", found, "run on the host: vhost-famfs pool create");
    }
    if is_mounted { Finding::ok("device", found) } else { unmounted(name, found, has_pool, true) }
}

/// Examines a device that is not mounted. With `has_pool` another one is mounted, so that this one
/// need not hold a famfs.
fn unmounted(name: &str, found: String, has_pool: bool, is_dax: bool) -> Finding {
    let content = match is_dax {
        true => Ok(guest::look_at_dax(name)),
        false => match guest::needs_probe(name) {
            // Only `attach` has it probed again: the doctor changes nothing.
            Ok(true) => Ok(Device::NotYet("has a devdax info block, but no dax device".into())),
            Ok(false) => guest::look_at_pmem(name),
            Err(err) => Err(err),
        },
    };
    match content {
        Ok(Device::Famfs(_)) => {
            let mend = format!("famfs attach --device /dev/{name}");
            Finding::warning("device", format!("{found}; holds a famfs that is not mounted"), mend)
        }
        Ok(Device::Not(reason)) if has_pool => Finding::ok("device", format!("{found}; {reason}")),
        Ok(Device::Not(reason)) => {
            let mend = "if it is the pool, run on the host: vhost-famfs pool inspect POOL";
            Finding::warning("device", format!("{found}; {reason}"), mend)
        }
        Ok(Device::NotYet(reason)) => {
            let mend = format!("famfs attach --device /dev/{name}");
            Finding::skipped("device", format!("{found}; {reason}"), mend)
        }
        Err(err) => {
            Finding::skipped("device", format!("{found}; {}", one_line(&err)), "run as root")
        }
    }
}

fn open(mount: &MountEntry) -> anyhow::Result<MountedVolume> {
    let system = role::known_system_uuid()?;
    Ok(Mounted::at(&mount.mount_point, &mount.source)?.open(Access::Read, system)?)
}

fn contents(mount: &MountEntry, volume: &MountedVolume, findings: &mut Vec<Finding>) {
    let point = mount.mount_point.display();
    let fsck = format!("famfs fsck {point}");
    let mkfs = format!("famfs mkfs {}", mount.source.display());
    let Some(contents) = contents::examine(volume.media(), &fsck, &mkfs, findings) else { return };
    findings.push(role_of(volume, &contents));
    findings.push(played(mount, volume));
    findings.push(match Watcher::of(&mount.mount_point) {
        Ok(Some(pid)) => Finding::ok("watch", format!("process {pid} follows the log")),
        Ok(None) => Finding::warning(
            "watch",
            "no process follows the log: files of other systems do not appear by themselves",
            format!("systemctl start famfs-watch, or famfs watch {point}"),
        ),
        Err(err) => Finding::skipped("watch", one_line(&err), "run as root"),
    });
    findings.push(mapping(mount, volume, &contents.plan));
}

fn role_of(volume: &MountedVolume, contents: &Contents<'_>) -> Finding {
    let master = contents.superblock.system_uuid;
    let role = volume.role();
    let found = match role {
        Role::Master => format!("master ({master})"),
        Role::Client => format!("client; the master is {master}"),
    };
    match lease::read(volume.media(), contents.superblock.fs_uuid) {
        Ok(Some(lease)) if lease.heartbeat != 0 => {
            Finding::ok("role", format!("{found}; lease: {}", lease.holder))
        }
        _ => Finding::ok("role", format!("{found}; nobody holds the lease")),
    }
}

/// Whether all names of the log have appeared.
fn played(mount: &MountEntry, volume: &MountedVolume) -> Finding {
    let point = mount.mount_point.display();
    let mend = format!("famfs umount {point}; famfs attach");
    let applied = match play(volume, Task { dry_run: true, ..Task::default() }, |_| {}) {
        Ok(played) => played.applied,
        Err(err) => return Finding::failed("files", one_line(&err), mend),
    };
    if let Some(error) = applied.errors.first() {
        let (count, first) = (applied.errors.len(), one_line(error));
        return Finding::failed("files", format!("{count} errors; the first: {first}"), mend);
    }
    let missing = applied.made();
    if missing > 0 {
        return Finding::warning(
            "files",
            format!("{missing} files and directories of the log have not appeared"),
            format!("famfs logplay {point}"),
        );
    }
    Finding::ok(
        "files",
        format!("all {} files and directories of the log are here", applied.existed),
    )
}

/// Touches a file and checks how the kernel mapped it.
fn mapping(mount: &MountEntry, volume: &MountedVolume, plan: &Plan) -> Finding {
    let tree = plan.tree();
    let large = tree.at_and_below(None).into_iter().find_map(|entry| {
        let ObjectKind::File { size, bytes } = &entry.listed.object.kind else { return None };
        let memory = tree.memory(bytes, *size);
        // Only what has memory in whole units can be mapped by them.
        let is_whole = |unit: &u64| {
            matches!(memory.part(unit * ALLOC_UNIT), Some((Some(at), len))
                if at.is_multiple_of(ALLOC_UNIT) && len >= ALLOC_UNIT)
        };
        let units = (0..(size / ALLOC_UNIT).min(TOUCHED)).take_while(is_whole).count() as u64;
        (units > 0).then_some((entry.path, *size, memory, units))
    });
    let Some((path, size, memory, units)) = large else {
        let mend =
            format!("run on the master: famfs creat -s 2m {}/FILE", mount.mount_point.display());
        return Finding::skipped("mapping", "no file of at least 2 MiB to test it with", mend);
    };
    let counter = match FaultCounter::start(&mount.mount_point) {
        Ok(counter) => counter,
        Err(err) => return Finding::skipped("mapping", one_line(&err), "run as root"),
    };
    let touched = volume
        .open_file(&path, size, &memory, Access::Read)
        .and_then(|bytes| (0..units).try_for_each(|unit| bytes.read(unit * ALLOC_UNIT, &mut [0])));
    if let Err(err) = touched {
        let mend = format!("famfs verify or famfs sum {path}, to see how much of it is lost");
        return Finding::failed("mapping", format!("cannot read {path}: {err}"), mend);
    }
    let faults = match counter.faults() {
        Ok(faults) => faults,
        Err(err) => return Finding::skipped("mapping", one_line(&err), "run as root"),
    };
    let made = faults.pmd.get("NOPAGE").copied().unwrap_or(0);
    let small: u64 = faults.pte.values().sum();
    let found = format!("{units} units of {path}: {made} faults of 2 MiB, {small} of 4 KiB");
    if made == units && small == 0 {
        Finding::ok("mapping", found)
    } else {
        let mend =
            "use a device and a kernel with 2 MiB pages; see \"device\" and \"kernel\" above";
        Finding::failed("mapping", found, mend)
    }
}

#[cfg(test)]
mod tests {
    use super::parse_release;

    #[test]
    fn reads_kernel_releases() {
        assert_eq!(parse_release("7.3.4+deb13-cloud-amd64"), Some((7, 3)));
        assert_eq!(parse_release("6.12-rc1"), Some((6, 12)));
        assert_eq!(parse_release("Linux"), None);
    }
}
