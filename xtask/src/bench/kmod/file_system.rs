// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file systems to compare: famfs, and others with DAX.

use anyhow::Result;

use super::guest::Guest;

/// Where the files of famfs begin on the device.
pub const OFFSET: u64 = 64 << 20;

/// A file system with DAX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// Ours.
    Famfs,
    /// The file system in the comparison of famfs's review.
    Xfs,
    /// The other file system with DAX.
    Ext4,
}

impl FileSystem {
    /// All of them; famfs first.
    pub const ALL: [Self; 3] = [Self::Famfs, Self::Xfs, Self::Ext4];

    /// Its name in the ids of measurements.
    pub fn id(self) -> &'static str {
        match self {
            Self::Famfs => "famfs",
            Self::Xfs => "xfs",
            Self::Ext4 => "ext4",
        }
    }

    /// Its name as a peer.
    pub fn name(self) -> &'static str {
        match self {
            Self::Famfs => "famfs",
            Self::Xfs => "xfs -o dax",
            Self::Ext4 => "ext4 -o dax",
        }
    }

    /// Creates an empty file system and mounts it. The peers may align files to 2 MiB, as famfs
    /// does.
    pub fn mount(self, guest: &Guest) -> Result<()> {
        let script = match self {
            Self::Famfs => "mount -i -t famfs -o noatime /dev/pmem0 /run/mnt",
            Self::Xfs => {
                "mkfs.xfs -q -f -m reflink=0 -d su=2m,sw=1 /dev/pmem0
                 mount -t xfs -o noatime,dax=always /dev/pmem0 /run/mnt"
            }
            Self::Ext4 => {
                "mkfs.ext4 -q -F -b 4096 -E stride=512,stripe_width=512 /dev/pmem0
                 mount -t ext4 -o noatime,dax=always /dev/pmem0 /run/mnt"
            }
        };
        guest.shell(script).map(|_| ())
    }

    /// Creates files of `size` bytes each, with all their space allocated.
    pub fn allocate(self, guest: &Guest, names: &[String], size: u64) -> Result<()> {
        let lines: Vec<_> = names
            .iter()
            .zip(0..)
            .map(|(name, i)| match self {
                Self::Famfs => {
                    let offset = OFFSET + i * size;
                    format!("place extents /run/mnt/{name} {size} {offset} 1")
                }
                _ => format!("fallocate --length {size} /run/mnt/{name}"),
            })
            .collect();
        guest.shell(&lines.join("\n")).map(|_| ())
    }
}
