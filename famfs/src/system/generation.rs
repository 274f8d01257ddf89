// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The generation of a virtual machine: a number that its VMM makes anew whenever it starts or
//! resumes the machine, so that a clone differs from what it was cloned from. Everything else that
//! a guest could know itself by, such as its boot id, is in its memory, and is cloned with it.
//!
//! It is in files of QEMU's firmware interface, which the kernel's module `qemu_fw_cfg` shows. They
//! come from the QEMU process and not from the saved state, so they have the new number before the
//! first instruction of a resumed machine. The kernel's own driver for such numbers (`vmgenid`)
//! reports a new one only some time after that, by an event, and not with every firmware.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use uuid::Uuid;

/// Where the kernel shows the files, by their names. They are for root with `CAP_SYS_ADMIN`.
pub const FILES: &str = "/sys/firmware/qemu_fw_cfg/by_name";
/// The file of QEMU's device `vmgenid`, and where the number begins in it (QEMU,
/// docs/specs/vmgenid).
const DEVICE: &str = "etc/vmgenid_guid/raw";
const OFFSET: u64 = 40;
/// A UUID as text, which the launcher gives a machine whose firmware cannot have the device.
pub const LAUNCHER: &str = "opt/org.vhost-famfs/generation";

/// The generation that this machine has now, from a directory such as [`FILES`]; `None` if it has
/// none. Of a machine with both numbers it is the exclusive or: it changes with either.
///
/// # Errors
/// A file cannot be read, or holds something else.
pub fn read(files: &Path) -> io::Result<Option<Uuid>> {
    let device = existing(device(&files.join(DEVICE)))?;
    let launcher = existing(launcher(&files.join(LAUNCHER).join("raw")))?;
    let both = device.into_iter().chain(launcher).map(|number| number.as_u128());
    Ok(both.reduce(|one, other| one ^ other).map(Uuid::from_u128))
}

fn existing(read: io::Result<Uuid>) -> io::Result<Option<Uuid>> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

fn device(file: &Path) -> io::Result<Uuid> {
    let mut number = [0; 16];
    File::open(file)?.read_exact_at(&mut number, OFFSET)?;
    Ok(Uuid::from_bytes(number))
}

fn launcher(file: &Path) -> io::Result<Uuid> {
    // In one read: the kernel gets the bytes one by one, for each read from the first one on.
    let mut bytes = [0; 40];
    let len = File::open(file)?.read_at(&mut bytes, 0)?;
    Uuid::try_parse_ascii(bytes[..len].trim_ascii_end())
        .map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn put(dir: &Path, name: &str, bytes: &[u8]) {
        let file = dir.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    }

    #[test]
    fn either_number_counts() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let put_device = |number: u128| {
            let number = Uuid::from_u128(number);
            put(dir, DEVICE, &[&[0xee; 40][..], number.as_bytes(), &[0xee; 8]].concat());
        };
        let found = || read(dir).unwrap().map(|number| number.as_u128());
        assert_eq!(found(), None);
        put_device(7);
        assert_eq!(found(), Some(7));
        let raw = format!("{LAUNCHER}/raw");
        put(dir, &raw, format!("{}\n", Uuid::from_u128(2)).as_bytes());
        assert_eq!(found(), Some(5));
        put_device(8);
        assert_eq!(found(), Some(10));
        fs::remove_file(dir.join(DEVICE)).unwrap();
        assert_eq!(found(), Some(2));
    }

    #[test]
    fn something_else_is_no_number() {
        let dir = tempfile::tempdir().unwrap();
        let raw = format!("{LAUNCHER}/raw");
        for (name, bytes, kind) in [
            (raw.as_str(), &b"seven"[..], io::ErrorKind::InvalidData),
            (DEVICE, &[0; 55], io::ErrorKind::UnexpectedEof),
        ] {
            put(dir.path(), name, bytes);
            assert_eq!(read(dir.path()).unwrap_err().kind(), kind);
            fs::remove_file(dir.path().join(name)).unwrap();
        }
    }
}
