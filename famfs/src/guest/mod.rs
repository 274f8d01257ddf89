// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest's memory devices in sysfs: which exist, what they hold, which driver has them.
//!
//! A pool arrives as a virtio-pmem device. If it has an info block, libnvdimm makes a dax device of
//! it, which famfs needs bound to the driver fsdev_dax; otherwise it becomes a pmem block device.
//! What a device holds is found out by examining it, never by its number.

pub mod arrivals;
pub mod search;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::format::SUPERBLOCK_MAGIC;
use crate::format::view::INFO_BLOCK_OFFSET;
use crate::kernel::mount::{MountError, Mounted};
use crate::store::superblock::{Superblock, SuperblockError};
use crate::system::mounts::{self, MountEntry};

/// Devices for dax drivers.
const DAX_DEVICES: &str = "/sys/bus/dax/devices";
/// Drivers for them.
const DAX_DRIVERS: &str = "/sys/bus/dax/drivers";
/// The driver that makes pmem block devices, with its `bind` and `unbind`.
const ND_PMEM: &str = "/sys/bus/nd/drivers/nd_pmem";
/// Block devices of the kernel.
const BLOCK: &str = "/sys/class/block";
/// Devices of virtio.
const VIRTIO_DEVICES: &str = "bus/virtio/devices";
/// In a virtio device's `device`: persistent memory (Virtual I/O Device 1.3, section 5: 27).
const VIRTIO_PMEM: &str = "0x001b";
/// Bytes to examine: superblock and info block.
const HEAD_LEN: usize = 8192;

/// A step with a device that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct GuestError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn error(action: &'static str, path: &Path, source: io::Error) -> GuestError {
    GuestError { action, path: path.to_owned(), source }
}

/// What a device turned out to be.
#[derive(Debug)]
pub enum Finding {
    /// It holds a famfs, which is not mounted yet.
    Famfs(Mounted),
    /// It is not a pool, or not yet: the reason.
    Not(String),
    /// Its driver is still working, so it cannot be examined: what failed.
    NotYet(String),
}

/// Names of the dax devices, such as `dax0.0`.
pub fn dax_devices() -> Vec<String> {
    names(DAX_DEVICES, |_| true)
}

/// Names of the pmem block devices, such as `pmem0`.
pub fn pmem_devices() -> Vec<String> {
    names(BLOCK, |name| name.starts_with("pmem"))
}

/// What uses a pmem block device other than famfs: where it is mounted, or the devices on top of
/// it. Then it is not a pool.
pub fn other_use(name: &str) -> Option<String> {
    let dir = Path::new(BLOCK).join(name);
    let number = mounts::device_number(fs::read_to_string(dir.join("dev")).ok()?.trim())?;
    mounted_by_number(&mounts::read().unwrap_or_default(), number).or_else(|| {
        let above = names(&dir.join("holders").to_string_lossy(), |_| true);
        (!above.is_empty()).then(|| format!("used by {}", above.join(", ")))
    })
}

/// Where the device of a number is mounted.
fn mounted_by_number(table: &[MountEntry], number: (u32, u32)) -> Option<String> {
    let mount = table.iter().find(|mount| mount.device == number)?;
    Some(format!("mounted on {} as {}", mount.mount_point.display(), mount.fs_type))
}

/// Virtio devices that are memory, such as `virtio1`, and have neither a dax nor a pmem device.
/// After the start, these are devices whose drivers are still working.
pub fn awaited_windows() -> BTreeSet<String> {
    awaited_below(Path::new("/sys"))
}

fn awaited_below(sys: &Path) -> BTreeSet<String> {
    let paths = |dir: &str| {
        let entries = fs::read_dir(sys.join(dir)).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let is_memory = |device: &PathBuf| {
        let id = fs::read_to_string(device.join("device")).unwrap_or_default();
        id.trim_end() == VIRTIO_PMEM
    };
    let mut awaited: BTreeSet<String> =
        paths(VIRTIO_DEVICES).into_iter().filter(is_memory).map(|path| name_of(&path)).collect();
    // Each device lies below the one that it came from: .../virtio1/ndbus0/region0/...
    for device in ["bus/dax/devices", "class/block"].into_iter().flat_map(paths) {
        let real = fs::canonicalize(device).unwrap_or_default();
        for part in real.iter() {
            awaited.remove(part.to_string_lossy().as_ref());
        }
    }
    awaited
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Entries of a sysfs directory; none if the directory does not exist (yet).
fn names(dir: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| wanted(name))
        .collect();
    names.sort_unstable();
    names
}

/// Which driver has a dax device.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DaxDriver {
    Fsdev,
    DeviceDax,
    Nobody,
}

/// Binds a dax device to fsdev_dax, unless a driver other than device_dax has it.
///
/// device_dax may have given it to a program that has it mapped. So it is taken from device_dax
/// only if it is a virtual machine's window (virtio-pmem), or `asked` for by name.
pub fn bind_fsdev(name: &str, asked: bool) -> Result<(), GuestError> {
    match dax_driver(name, asked)? {
        DaxDriver::Fsdev => return Ok(()),
        DaxDriver::DeviceDax => {
            write_sysfs(&Path::new(DAX_DRIVERS).join("device_dax/unbind"), name)?;
        }
        DaxDriver::Nobody => {}
    }
    write_sysfs(&Path::new(DAX_DRIVERS).join("fsdev_dax/new_id"), name)
}

/// Whether [`bind_fsdev`] would change anything; an error if it may not.
pub fn needs_fsdev(name: &str, asked: bool) -> Result<bool, GuestError> {
    Ok(dax_driver(name, asked)? != DaxDriver::Fsdev)
}

/// The driver of a dax device, if the device may be taken from it.
fn dax_driver(name: &str, asked: bool) -> Result<DaxDriver, GuestError> {
    let driver_link = Path::new(DAX_DEVICES).join(name).join("driver");
    let driver = fs::read_link(&driver_link).ok();
    let driver = driver.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
    match driver {
        Some("fsdev_dax") => Ok(DaxDriver::Fsdev),
        Some("device_dax") if !asked && !is_window(name) => {
            let used = io::Error::other(
                "device_dax has it and it is not a virtio-pmem device; name it with --device if it \
                 is the pool",
            );
            Err(error("take", &driver_link, used))
        }
        Some("device_dax") => Ok(DaxDriver::DeviceDax),
        Some(other) => {
            let held = io::Error::other(format!("the driver {other} has it, expected device_dax"));
            Err(error("take", &driver_link, held))
        }
        None => Ok(DaxDriver::Nobody),
    }
}

/// Whether a dax device is the memory of a virtio device.
fn is_window(name: &str) -> bool {
    let device = fs::canonicalize(Path::new(DAX_DEVICES).join(name)).unwrap_or_default();
    device.iter().any(|part| part.to_string_lossy().starts_with("virtio"))
}

/// Examines a dax device through a famfs that is mounted nowhere. There is no other way: its node
/// can be neither read nor mapped.
pub fn look_at_dax(name: &str) -> Finding {
    let device = Path::new("/dev").join(name);
    let mounted = match Mounted::detached(&device) {
        Ok(mounted) => mounted,
        Err(err) => return refused(&device, &err),
    };
    let superblock = mounted.superblock_media().map(|media| Superblock::read(&media));
    match superblock {
        Ok(Ok(_)) => Finding::Famfs(mounted),
        Ok(Err(SuperblockError::Magic { found: 0, .. })) => Finding::Not(
            "reads zero: not formatted, or the back-end has not mapped the pool".to_owned(),
        ),
        Ok(Err(err)) => Finding::Not(crate::text::error_report::one_line(&err)),
        Err(err) => Finding::Not(crate::text::error_report::one_line(&err)),
    }
}

/// What it means that the kernel does not mount a device: it is in use and not available, it lacks
/// its driver, or the driver is still working.
fn refused(device: &Path, err: &MountError) -> Finding {
    let reason = crate::text::error_report::one_line(err);
    if err.device_errno() != Some(Errno::BUSY.raw_os_error()) {
        return Finding::NotYet(reason);
    }
    // Another user of the device need not be in this process's mount table.
    Finding::Not(match mounts::of(device) {
        Ok(Some(mount)) => {
            let place = mount.mount_point.display();
            format!("mounted already, on {place}: `famfs logplay {place}` plays its log")
        }
        _ => reason,
    })
}

/// Examines a pmem block device. If its info block appeared only after its driver looked, the
/// driver is made to probe it again, which turns it into a dax device.
pub fn look_at_pmem(name: &str) -> Result<Finding, GuestError> {
    let device = Path::new("/dev").join(name);
    let head = match read_head(&device).map_err(|err| error("read", &device, err)) {
        Ok(head) => head,
        Err(err) => return Ok(Finding::NotYet(crate::text::error_report::one_line(&err))),
    };
    if has_info_block(&head) {
        probe_again(name)?;
        let reason = "has a devdax info block; its driver was made to probe it again";
        return Ok(Finding::NotYet(reason.to_owned()));
    }
    if head.starts_with(&SUPERBLOCK_MAGIC.to_le_bytes()) {
        return Ok(match Mounted::detached(&device) {
            Ok(mounted) => Finding::Famfs(mounted),
            Err(err) => refused(&device, &err),
        });
    }
    let reason = if head.iter().all(|&byte| byte == 0) {
        "reads zero: not formatted, or the back-end has not mapped the pool"
    } else {
        "holds neither a famfs superblock nor a devdax info block"
    };
    Ok(Finding::Not(reason.to_owned()))
}

/// Whether [`look_at_pmem`] would make a device's driver probe it again.
pub fn needs_probe(name: &str) -> Result<bool, GuestError> {
    let device = Path::new("/dev").join(name);
    let head = read_head(&device).map_err(|err| error("read", &device, err))?;
    Ok(has_info_block(&head))
}

fn has_info_block(head: &[u8]) -> bool {
    let block = usize::try_from(INFO_BLOCK_OFFSET).ok().and_then(|at| head.get(at..));
    block.is_some_and(|block| block.starts_with(b"NVDIMM_DAX_INFO\0"))
}

/// The device's first bytes, read past the page cache, which would keep what was there too early.
fn read_head(device: &Path) -> io::Result<Vec<u8>> {
    let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let file = fs::OpenOptions::new().read(true).custom_flags(direct).open(device)?;
    // Direct I/O wants an aligned buffer; twice the length holds an aligned part of the length.
    let mut buf = vec![0; 2 * HEAD_LEN];
    let start = buf.as_ptr().align_offset(HEAD_LEN).min(HEAD_LEN);
    file.read_exact_at(&mut buf[start..start + HEAD_LEN], 0)?;
    Ok(buf[start..start + HEAD_LEN].to_vec())
}

/// Unbinds a pmem device's namespace from its driver, and binds it again.
fn probe_again(name: &str) -> Result<(), GuestError> {
    let link = Path::new(BLOCK).join(name).join("device");
    let namespace = fs::canonicalize(&link).map_err(|err| error("resolve", &link, err))?;
    let Some(namespace) = namespace.file_name().and_then(|name| name.to_str()) else {
        return Err(error("resolve", &link, io::ErrorKind::InvalidData.into()));
    };
    write_sysfs(&Path::new(ND_PMEM).join("unbind"), namespace)?;
    // The driver answers ENXIO when it leaves the namespace to a dax device, as it should.
    let _ = write_sysfs(&Path::new(ND_PMEM).join("bind"), namespace);
    Ok(())
}

fn write_sysfs(path: &Path, value: &str) -> Result<(), GuestError> {
    fs::write(path, value).map_err(|err| error("write", path, err))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_window_is_awaited_until_its_device_is_there() {
        let sys = tempfile::tempdir().unwrap();
        let sys = sys.path();
        for (device, id) in [("virtio0", "0x0003"), ("virtio1", "0x001b"), ("virtio2", "0x001b")] {
            let dir = sys.join("devices/pci0").join(device);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("device"), format!("{id}\n")).unwrap();
            link(sys, VIRTIO_DEVICES, device, &dir);
        }
        assert!(awaited_below(sys).iter().eq(["virtio1", "virtio2"]));
        let below = |path: &str| sys.join("devices/pci0").join(path);
        link(sys, "class/block", "pmem1", &below("virtio2/ndbus1/region1/block/pmem1"));
        assert!(awaited_below(sys).iter().eq(["virtio1"]));
        link(sys, "bus/dax/devices", "dax0.0", &below("virtio1/ndbus0/region0/dax0.1/dax0.0"));
        assert!(awaited_below(sys).is_empty());
    }

    #[test]
    fn a_root_in_memory_is_in_use() {
        let table = b"\
21 1 259:0 / / ro,noatime shared:1 - erofs /dev/root ro,dax=always
30 21 0:48 / /mnt/famfs rw - famfs /dev/dax0.0 rw
";
        let table = mounts::parse(table);
        let found = mounted_by_number(&table, (259, 0));
        assert_eq!(found.as_deref(), Some("mounted on / as erofs"));
        assert_eq!(mounted_by_number(&table, (259, 1)), None);
    }

    fn link(sys: &Path, class: &str, name: &str, to: &Path) {
        fs::create_dir_all(to).unwrap();
        fs::create_dir_all(sys.join(class)).unwrap();
        symlink(to, sys.join(class).join(name)).unwrap();
    }
}
