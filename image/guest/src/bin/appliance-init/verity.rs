// SPDX-License-Identifier: Apache-2.0 OR MIT
//! dm-verity: a root that cannot be read if it has been altered.
//!
//! The root disk has two partitions, data and hashes (`image/mkosi.repart`). Only `roothash=` on
//! the kernel command line is trusted; the kernel checks everything that is read from the disk
//! against it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::{root, sys};

/// The superblock at the start of the hash partition (kernel documentation, verity.rst;
/// cryptsetup).
const SUPERBLOCK_LEN: usize = 512;
const SIGNATURE: &[u8; 8] = b"verity\0\0";
/// Bytes per sector of the device mapper.
const SECTOR: u64 = 512;

/// Finds `roothash=` and checks its format: SHA-256 in hexadecimal.
pub fn root_hash(command_line: &str) -> Result<Option<&str>> {
    let mut words = command_line.split_ascii_whitespace().rev();
    let Some(hash) = words.find_map(|word| word.strip_prefix("roothash=")) else {
        return Ok(None);
    };
    ensure!(
        hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "roothash={hash}: expected 64 hexadecimal digits"
    );
    Ok(Some(hash))
}

/// Creates the verified device for a disk.
pub fn open(disk: &Path, root_hash: &str) -> Result<PathBuf> {
    let name = disk.file_name().unwrap_or_default().to_string_lossy();
    let (data, hashes) = (format!("{name}1"), format!("{name}2"));
    for partition in [&data, &hashes] {
        root::wait_for(&Path::new("/sys/class/block").join(partition))?;
    }
    let hashes = Path::new("/dev").join(hashes);
    let mut block = [0; SUPERBLOCK_LEN];
    File::open(&hashes)
        .and_then(|file| file.read_exact_at(&mut block, 0))
        .with_context(|| format!("cannot read {}", hashes.display()))?;
    let table = Table::read(&block).with_context(|| hashes.display().to_string())?;
    let size = Path::new("/sys/class/block").join(&data).join("size");
    let size = fs::read_to_string(&size)
        .with_context(|| format!("cannot read {}", size.display()))?
        .trim()
        .parse::<u64>()
        .with_context(|| format!("no number in {}", size.display()))?;
    ensure!(table.sectors() <= size, "{data}: {size} sectors, expected {}", table.sectors());
    let control = File::options()
        .read(true)
        .write(true)
        .open("/dev/mapper/control")
        .context("cannot open /dev/mapper/control")?;
    let data = Path::new("/dev").join(data);
    let parameters = table.parameters(&data, &hashes, root_hash);
    let minor = sys::make_device(&control, "root", table.sectors(), "verity", &parameters)
        .with_context(|| format!("cannot create a verity device: {parameters}"))?;
    let device = PathBuf::from(format!("/dev/dm-{minor}"));
    root::wait_for(&device)?;
    Ok(device)
}

/// The contents of the superblock.
#[derive(Debug, PartialEq, Eq)]
struct Table {
    data_block: u32,
    hash_block: u32,
    data_blocks: u64,
    salt: String,
}

impl Table {
    fn read(block: &[u8; SUPERBLOCK_LEN]) -> Result<Self> {
        let number = |at: usize| {
            u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
        };
        ensure!(block.starts_with(SIGNATURE), "no verity superblock");
        let (version, hash_type) = (number(8), number(12));
        ensure!(
            (version, hash_type) == (1, 1),
            "verity version {version}, hash type {hash_type}, expected 1, 1"
        );
        let algorithm = block[32..64].split(|&byte| byte == 0).next().unwrap_or_default();
        ensure!(
            algorithm == b"sha256",
            "hash algorithm {:?}, expected sha256",
            String::from_utf8_lossy(algorithm)
        );
        let (data_block, hash_block) = (number(64), number(68));
        for size in [data_block, hash_block] {
            ensure!((512..=4096).contains(&size) && size.is_power_of_two(), "block size {size}");
        }
        let data_blocks = u64::from(number(72)) | u64::from(number(76)) << 32;
        ensure!(data_blocks > 0 && data_blocks < 1 << 40, "{data_blocks} data blocks");
        let salt_len = usize::from(u16::from_le_bytes([block[80], block[81]]));
        ensure!(salt_len <= 256, "salt of {salt_len} bytes, but at most 256 are possible");
        let salt = block[88..88 + salt_len].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { data_block, hash_block, data_blocks, salt })
    }

    fn sectors(&self) -> u64 {
        self.data_blocks * (u64::from(self.data_block) / SECTOR)
    }

    /// The target's parameters (verity.rst). The hashes start in the block after the superblock.
    fn parameters(&self, data: &Path, hashes: &Path, root_hash: &str) -> String {
        let Self { data_block, hash_block, data_blocks, salt } = self;
        let salt = if salt.is_empty() { "-" } else { salt };
        // If the root has been altered, the machine must stop, not half work.
        format!(
            "1 {} {} {data_block} {hash_block} {data_blocks} 1 sha256 {root_hash} {salt} 1 panic_on_corruption",
            data.display(),
            hashes.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> [u8; SUPERBLOCK_LEN] {
        let mut block = [0; SUPERBLOCK_LEN];
        block[..8].copy_from_slice(SIGNATURE);
        block[8] = 1;
        block[12] = 1;
        block[32..38].copy_from_slice(b"sha256");
        block[64..68].copy_from_slice(&4096_u32.to_le_bytes());
        block[68..72].copy_from_slice(&4096_u32.to_le_bytes());
        block[72] = 3;
        block[80] = 2;
        block[88..90].copy_from_slice(&[0xab, 0x01]);
        block
    }

    #[test]
    fn a_superblock_becomes_a_table() {
        let table = Table::read(&block()).unwrap();
        assert_eq!(table.sectors(), 24);
        let parameters = table.parameters(Path::new("/dev/vda1"), Path::new("/dev/vda2"), "HASH");
        assert_eq!(
            parameters,
            "1 /dev/vda1 /dev/vda2 4096 4096 3 1 sha256 HASH ab01 1 panic_on_corruption"
        );
    }

    #[test]
    fn damaged_superblocks_are_refused() {
        for (at, value) in
            [(0, b'x'), (8, 2), (12, 0), (32, b'x'), (64, 1), (72, 0), (78, 1), (81, 0xff)]
        {
            let mut damaged = block();
            damaged[at] = value;
            assert!(Table::read(&damaged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn root_hashes_are_checked() {
        assert_eq!(root_hash("ro quiet").unwrap(), None);
        let line = format!("ro roothash={}\n", "0f".repeat(32));
        assert_eq!(root_hash(&line).unwrap(), Some("0f".repeat(32).as_str()));
        assert!(root_hash("roothash=12").is_err());
        assert!(root_hash(&format!("roothash={}", "xy".repeat(32))).is_err());
    }
}
