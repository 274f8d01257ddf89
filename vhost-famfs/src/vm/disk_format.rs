// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The format of a user's disk image: of a file by its content, of a block device always the same.
//! QEMU is told the format instead of guessing: the content of a disk is a guest's.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// How much of a file is read: up to the signature that is farthest from its start.
const HEAD: u64 = 40 << 10;

/// Where qcow2 begins, and the numbers of its header (QEMU, docs/interop/qcow2.rst).
const QCOW2: &[u8] = b"QFI\xfb";
const QCOW2_VERSIONS: [u64; 2] = [2, 3];
const QCOW2_BACKING_FILE: usize = 8;
const QCOW2_ENCRYPTION: usize = 32;
const QCOW2_INCOMPATIBLE: usize = 72;
const QCOW2_EXTERNAL_DATA: u64 = 1 << 2;

/// The signature of a boot sector with a partition table (UEFI 2.11, 5.2.1), and that of a GUID
/// partition table in the next sector of 512 or 4096 bytes (5.3.2).
const BOOT_SECTOR: (usize, &[u8]) = (510, &[0x55, 0xaa]);
const GPT: [(usize, &[u8]); 2] = [(512, b"EFI PART"), (4096, b"EFI PART")];

/// The format of a disk image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFormat {
    /// The sectors of the disk, with a partition table.
    Raw,
    /// QEMU's own format.
    Qcow2,
    /// A block device of the host: its sectors, whatever they hold. It may have been another
    /// guest's, so that nothing in it is followed to other files.
    Device,
}

/// Why a file is no disk image for a VM.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Another image has its name.
    #[error(
        "disk image {}: it is {}, but was {} when the VM was planned; use `vhost-famfs down` and \
         `up` for the new image", path.display(), found.words(), expected.words()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: DiskFormat,
        /// The format that it had.
        expected: DiskFormat,
    },
    /// It cannot be read.
    #[error("cannot read the disk image {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error(
        "{}: found {found}, expected a disk image: qcow2, or raw with a partition table (MBR or \
         GPT); {way}", path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: &'static str,
        /// What to do.
        way: &'static str,
    },
    /// It is a block device without a disk in it.
    #[error(
        "{}: this block device has a size of 0; attach a disk image to it first (losetup, qemu-nbd), \
         or name another device", .0.display()
    )]
    EmptyDevice(PathBuf),
    /// It is a qcow2 image that needs more than its file.
    #[error(
        "{}: this qcow2 image {what}; make one of it that stands alone, with `qemu-img convert -O \
         qcow2`", path.display()
    )]
    Dependent {
        /// The file.
        path: PathBuf,
        /// What it needs.
        what: String,
    },
}

/// What people have that is no disk image for a VM: where its signature is, the signature, what it
/// is, and what to do.
const OTHERS: [(usize, &[u8], &str, &str); 16] = [
    (0x202, b"HdrS", "a Linux kernel", "the key `kernel` takes a kernel"),
    (0, b"\x7fELF", "a program or a kernel (ELF)", "the key `kernel` takes a kernel"),
    (0, b"KDMV", "a VMDK image", CONVERT),
    (0, b"vhdxfile", "a VHDX image", CONVERT),
    (0, b"conectix", "a VHD image", CONVERT),
    (64, &[0x7f, 0x10, 0xda, 0xbe], "a VDI image", CONVERT),
    (0, &[0x1f, 0x8b], "gzip", UNPACK),
    (0, &[0xfd, b'7', b'z', b'X', b'Z', 0], "xz", UNPACK),
    (0, &[0x28, 0xb5, 0x2f, 0xfd], "zstd", UNPACK),
    (0, b"BZh", "bzip2", UNPACK),
    (257, b"ustar", "a tar archive", "unpack it, and look for the disk image in it"),
    (0x438, &[0x53, 0xef], "an ext4 file system without a partition table", PARTITION),
    (0, b"XFSB", "an XFS file system without a partition table", PARTITION),
    (1024, &[0xe2, 0xe1, 0xf5, 0xe0], "an EROFS file system without a partition table", PARTITION),
    (0, b"hsqs", "a squashfs file system without a partition table", PARTITION),
    (32769, b"CD001", "an ISO 9660 file system", "install from it to a disk image"),
];

const CONVERT: &str = "convert it with `qemu-img convert -O qcow2`";
const UNPACK: &str = "unpack it first";
const PARTITION: &str = "put it into a partition of an image, for example with systemd-repart";

impl DiskFormat {
    /// QEMU's name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw | Self::Device => "raw",
            Self::Qcow2 => "qcow2",
        }
    }

    /// QEMU's name of what is below it.
    #[must_use]
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Raw | Self::Qcow2 => "file",
            Self::Device => "host_device",
        }
    }

    /// What it is, for the user.
    fn words(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Device => "a block device",
        }
    }

    /// The format of a file or block device.
    ///
    /// # Errors
    /// What it is instead, and what to do.
    pub fn of(path: &Path) -> Result<Self, DiskError> {
        let mut head = Vec::new();
        let read = |source| DiskError::Read { path: path.into(), source };
        let file = File::open(path).map_err(read)?;
        let is_device = file.metadata().map_err(read)?.file_type().is_block_device();
        file.take(HEAD).read_to_end(&mut head).map_err(read)?;
        if is_device {
            return match head.is_empty() {
                true => Err(DiskError::EmptyDevice(path.into())),
                false => Ok(Self::Device),
            };
        }
        let is = |(offset, signature): (usize, &[u8])| {
            head.get(offset..).is_some_and(|rest| rest.starts_with(signature))
        };
        if is((0, QCOW2)) {
            return match needs(&head) {
                None => Ok(Self::Qcow2),
                Some(what) => Err(DiskError::Dependent { path: path.into(), what }),
            };
        }
        // A kernel has the signature of a boot sector, too.
        let kernel = OTHERS[0];
        if (is(BOOT_SECTOR) || GPT.into_iter().any(is)) && !is((kernel.0, kernel.1)) {
            return Ok(Self::Raw);
        }
        let other = OTHERS.into_iter().find(|(offset, signature, ..)| is((*offset, signature)));
        let (found, way) = match other {
            Some((.., found, way)) => (found, way),
            None if head.is_empty() => ("an empty file", "name another file"),
            None => ("a file of another kind", "`qemu-img info` tells what it can convert"),
        };
        Err(DiskError::Other { path: path.into(), found, way })
    }
}

/// What a qcow2 image needs beside its file, or does not tell. Another file that it names is opened
/// with the rights of whoever starts the VM, and the guest reads it.
fn needs(head: &[u8]) -> Option<String> {
    let number = |at: usize, length: usize| {
        let bytes = head.get(at..at + length)?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let Some(version) = number(4, 4) else { return Some("has no whole header".into()) };
    if !QCOW2_VERSIONS.contains(&version) {
        return Some(format!("is of version {version}, expected 2 or 3"));
    }
    let what = [
        (QCOW2_BACKING_FILE, 8, u64::MAX, "lies over another image (a backing file)"),
        (QCOW2_ENCRYPTION, 4, u64::MAX, "is encrypted"),
        (QCOW2_INCOMPATIBLE, 8, QCOW2_EXTERNAL_DATA, "has its data in another file"),
    ];
    let fields = if version == 2 { &what[..2] } else { &what[..] };
    fields.iter().find_map(|(at, length, mask, what)| match number(*at, *length) {
        None => Some("has no whole header".to_owned()),
        Some(value) if value & mask != 0 => Some((*what).to_owned()),
        Some(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The format of a file with these parts, in words.
    fn format(parts: &[(usize, &[u8])]) -> Result<DiskFormat, String> {
        let mut bytes = vec![0; 41 << 10];
        for (offset, part) in parts {
            bytes[*offset..offset + part.len()].copy_from_slice(part);
        }
        of(&bytes)
    }

    fn of(bytes: &[u8]) -> Result<DiskFormat, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        DiskFormat::of(file.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_disk_is_known_by_its_content() {
        assert_eq!(format(&[BOOT_SECTOR]), Ok(DiskFormat::Raw));
        for gpt in GPT {
            assert_eq!(format(&[gpt]), Ok(DiskFormat::Raw));
        }
        for version in [2, 3] {
            assert_eq!(format(&[(0, QCOW2), (7, &[version])]), Ok(DiskFormat::Qcow2));
        }
    }

    #[test]
    fn everything_else_is_named_with_a_way_out() {
        for (offset, signature, found, way) in OTHERS {
            let error = format(&[(offset, signature)]).unwrap_err();
            let expected = format!("found {found}, expected a disk image");
            assert!(error.contains(&expected) && error.ends_with(way), "{error}");
        }
        let kernel = format(&[BOOT_SECTOR, (OTHERS[0].0, OTHERS[0].1)]).unwrap_err();
        assert!(kernel.contains("found a Linux kernel"), "{kernel}");
        assert!(of(b"").unwrap_err().contains("an empty file"));
        assert!(of(b"# a script").unwrap_err().contains("a file of another kind"));
        let missing = DiskFormat::of(Path::new("/nonexistent")).unwrap_err().to_string();
        assert_eq!(missing, "cannot read the disk image /nonexistent");
    }

    #[test]
    fn a_qcow2_image_that_leads_to_other_files_is_refused() {
        let refused = |version: u8, offset, value: &[u8]| {
            format(&[(0, QCOW2), (7, &[version]), (offset, value)]).unwrap_err()
        };
        assert!(refused(2, 15, &[1]).contains("lies over another image"));
        assert!(refused(3, 35, &[1]).contains("is encrypted"));
        assert!(refused(3, 79, &[4]).contains("has its data in another file"));
        assert!(refused(9, 15, &[0]).contains("is of version 9, expected 2 or 3"));
        // Version 2 has no such field.
        assert_eq!(format(&[(0, QCOW2), (7, &[2]), (79, &[4])]), Ok(DiskFormat::Qcow2));
        for length in 4..80 {
            let mut bytes = [QCOW2, &[0, 0, 0, 3], &[0; 72]].concat();
            bytes.truncate(length);
            assert_eq!(of(&bytes).is_ok(), length == 80, "{length} bytes");
        }
    }
}
