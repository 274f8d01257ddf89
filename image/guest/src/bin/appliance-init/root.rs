// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The root device: which one, and waiting for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Time for the root device to appear. Probing is synchronous for all that QEMU has at power-on.
const LIMIT: Duration = Duration::from_secs(20);

/// Pause between two looks.
const STEP: Duration = Duration::from_millis(10);

/// How a virtio disk's serial number appears in udev's names of disks.
const BY_ID: &str = "disk/by-id/virtio-";

/// A root device as the kernel command line names it.
#[derive(Debug, PartialEq, Eq)]
pub enum Root<'a> {
    /// `root=/dev/NAME`
    Name(&'a str),
    /// `root=/dev/disk/by-id/virtio-SERIAL`: a virtio disk, wherever it is plugged in.
    Serial(&'a str),
}

/// Reads `root=`. The last one counts, as for the kernel.
pub fn from_command_line(command_line: &str) -> Result<Root<'_>> {
    let Some(value) =
        command_line.split_ascii_whitespace().rev().find_map(|word| word.strip_prefix("root="))
    else {
        bail!("no root= on the kernel command line");
    };
    let name = value.strip_prefix("/dev/").unwrap_or_default();
    let root = name.strip_prefix(BY_ID).map_or(Root::Name(name), Root::Serial);
    let (Root::Name(word) | Root::Serial(word)) = root;
    if word.is_empty() || word.contains('/') {
        bail!("root={value}: expected /dev/NAME or /dev/{BY_ID}SERIAL");
    }
    Ok(root)
}

/// Waits for the device and gives its node.
pub fn find(root: Root<'_>) -> Result<PathBuf> {
    let start = Instant::now();
    loop {
        let disks = disks();
        let found = disks.iter().find(|(name, serial)| match root {
            Root::Name(wanted) => name == wanted,
            Root::Serial(wanted) => serial == wanted,
        });
        if let Some((name, _)) = found {
            return Ok(Path::new("/dev").join(name));
        }
        if start.elapsed() > LIMIT {
            bail!("no root device {root:?} after {LIMIT:?}; there are (name, serial): {disks:?}");
        }
        thread::sleep(STEP);
    }
}

/// Block devices with their serial numbers (empty where there is none).
fn disks() -> Vec<(String, String)> {
    let Ok(entries) = fs::read_dir("/sys/block") else { return Vec::new() };
    entries
        .flatten()
        .map(|entry| {
            let serial = fs::read_to_string(entry.path().join("serial")).unwrap_or_default();
            (entry.file_name().to_string_lossy().into_owned(), serial.trim().to_owned())
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
        ];
        for (line, expected) in table {
            assert_eq!(from_command_line(line).unwrap(), expected, "{line}");
        }
    }

    #[test]
    fn what_names_no_device_is_refused() {
        for line in [
            "",
            "ro",
            "root=",
            "root=LABEL=x",
            "root=/dev/",
            "root=/dev/../etc",
            "root=/dev/disk/by-id/virtio-",
            "xroot=/dev/vda",
        ] {
            assert!(from_command_line(line).is_err(), "{line:?}");
        }
    }
}
