// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Finds the root device and waits for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, mount};

/// How long to wait for the root device to appear. Everything that QEMU has at power-on is probed
/// synchronously.
const LIMIT: Duration = Duration::from_secs(20);

/// Pause between two checks.
const STEP: Duration = Duration::from_millis(10);

/// The prefix of a disk's name in udev, before a virtio disk's serial number.
const BY_ID: &str = "disk/by-id/virtio-";

/// The prefix of a disk's name in udev, before the PCI address of its controller.
const BY_PATH: &str = "disk/by-path/pci-";

/// A root device as named on the kernel command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root<'a> {
    /// `root=/dev/NAME`
    Name(&'a str),
    /// `root=/dev/disk/by-id/virtio-SERIAL`: a virtio disk, wherever it is plugged in.
    Serial(&'a str),
    /// `root=/dev/disk/by-path/pci-ADDRESS`: a virtio-pmem device, identified by its address, which
    /// the contents of another device, such as a pool, cannot imitate.
    Memory(&'a str),
}

impl Root<'_> {
    /// The kind of root, as used by `modules::load`.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Memory(_) => "pmem",
            Self::Name(name) if name.starts_with("pmem") => "pmem",
            Self::Name(_) | Self::Serial(_) => "disk",
        }
    }

    /// Mounts the root. If the root is in memory, it bypasses the guest's page cache.
    pub fn mount(self, device: &Path, target: &str) -> Result<()> {
        let options = (self.kind() == "pmem").then_some(c"dax=always");
        mount(device, target, "erofs", MountFlags::RDONLY, options)
            .with_context(|| format!("cannot mount {} as erofs", device.display()))
    }
}

/// Parses `root=`, if present. As in the kernel, the last one counts.
pub fn from_command_line(command_line: &str) -> Result<Option<Root<'_>>> {
    let Some(value) =
        command_line.split_ascii_whitespace().rev().find_map(|word| word.strip_prefix("root="))
    else {
        return Ok(None);
    };
    let name = value.strip_prefix("/dev/").unwrap_or_default();
    let root = match (name.strip_prefix(BY_ID), name.strip_prefix(BY_PATH)) {
        (Some(serial), _) => Root::Serial(serial),
        (_, Some(address)) => Root::Memory(address),
        _ => Root::Name(name),
    };
    let (Root::Name(word) | Root::Serial(word) | Root::Memory(word)) = root;
    if word.is_empty() || word.contains('/') {
        bail!("root={value}: expected /dev/NAME, /dev/{BY_ID}SERIAL or /dev/{BY_PATH}ADDRESS");
    }
    Ok(Some(root))
}

/// Waits for the device and returns its node.
pub fn find(root: Root<'_>) -> Result<PathBuf> {
    let start = Instant::now();
    loop {
        let disks = disks();
        let found = disks.iter().find(|disk| match root {
            Root::Name(wanted) => disk.name == wanted,
            Root::Serial(wanted) => disk.serial == wanted,
            Root::Memory(wanted) => {
                disk.name.starts_with("pmem") && disk.path.iter().any(|part| part == wanted)
            }
        });
        if let Some(disk) = found {
            return Ok(Path::new("/dev").join(&disk.name));
        }
        if start.elapsed() > LIMIT {
            bail!("no root device {root:?} after {LIMIT:?}; found: {disks:?}");
        }
        thread::sleep(STEP);
    }
}

/// Waits for a file of /sys or /dev.
pub fn wait_for(path: &Path) -> Result<()> {
    let start = Instant::now();
    while !path.exists() {
        if start.elapsed() > LIMIT {
            bail!("no {} after {LIMIT:?}", path.display());
        }
        thread::sleep(STEP);
    }
    Ok(())
}

/// A block device.
#[derive(Debug)]
struct Disk {
    name: String,
    /// Empty if it has none.
    serial: String,
    /// Its path in /sys/devices.
    path: PathBuf,
}

fn disks() -> Vec<Disk> {
    let Ok(entries) = fs::read_dir("/sys/block") else { return Vec::new() };
    entries
        .flatten()
        .map(|entry| {
            let serial = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
            Disk {
                name: entry.file_name().to_string_lossy().into_owned(),
                serial: serial.trim().to_owned(),
                path: fs::canonicalize(entry.path()).unwrap_or_default(),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_read_from_the_command_line() {
        let table = [
            ("console=ttyS0 root=/dev/vda ro", Root::Name("vda")),
            ("root=/dev/disk/by-id/virtio-famfs-root\n", Root::Serial("famfs-root")),
            ("root=/dev/vda root=/dev/pmem0", Root::Name("pmem0")),
            ("root=/dev/disk/by-path/pci-0000:00:1e.0", Root::Memory("0000:00:1e.0")),
        ];
        for (line, expected) in table {
            assert_eq!(from_command_line(line).unwrap(), Some(expected), "{line}");
        }
        for line in ["", "ro", "xroot=/dev/vda"] {
            assert_eq!(from_command_line(line).unwrap(), None, "{line}");
        }
    }

    #[test]
    fn what_names_no_device_is_refused() {
        for line in [
            "root=",
            "root=LABEL=x",
            "root=/dev/",
            "root=/dev/../etc",
            "root=/dev/disk/by-id/virtio-",
            "root=/dev/disk/by-path/pci-",
        ] {
            assert!(from_command_line(line).is_err(), "{line:?}");
        }
    }
}
