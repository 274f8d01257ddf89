// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The driver for user-space block devices, for exporting parts of a pool as disks.

use std::fs;
use std::path::Path;

use super::{Finding, Status};

/// The name of the module's file, without its extension.
const MODULE: &str = "ublk_drv";

/// Checks the running kernel.
pub(super) fn examine() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    examine_in(Path::new("/"), &release)
}

fn examine_in(root: &Path, release: &str) -> Finding {
    const CHECK: &str = "ublk";
    if root.join("dev/ublk-control").exists() {
        return match fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(root.join("dev/ublk-control"))
        {
            Ok(_) => Finding::ok(CHECK, "/dev/ublk-control opens"),
            Err(error) => Finding::with(
                CHECK,
                Status::Warning,
                format!("/dev/ublk-control: {error}"),
                "only needed for block exports: run as root, or let your group access the device",
            ),
        };
    }
    let modules = root.join("lib/modules").join(release);
    let known = ["modules.dep", "modules.builtin"].iter().any(|list| {
        fs::read_to_string(modules.join(list)).is_ok_and(|text| {
            text.lines().any(|line| line.split(['/', '.', ':']).any(|word| word == MODULE))
        })
    });
    if known {
        let fix = "only needed for block exports: modprobe ublk_drv";
        return Finding::with(CHECK, Status::Absent, "the module ublk_drv is not loaded", fix);
    }
    let found = format!("Linux {release} has no ublk_drv (CONFIG_BLK_DEV_UBLK)");
    let fix = "only needed for block exports: boot kernel 6.5 or newer with ublk_drv";
    Finding::with(CHECK, Status::Absent, found, fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_and_device_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let finding = || examine_in(dir.path(), "7.3.4");
        assert!(finding().found.contains("has no ublk_drv"), "{:?}", finding());
        let modules = dir.path().join("lib/modules/7.3.4");
        fs::create_dir_all(&modules).unwrap();
        fs::write(modules.join("modules.dep"), "kernel/drivers/block/ublk_drv.ko.xz:\n").unwrap();
        assert_eq!(finding().fix.unwrap(), "only needed for block exports: modprobe ublk_drv");
        fs::create_dir(dir.path().join("dev")).unwrap();
        fs::write(dir.path().join("dev/ublk-control"), "").unwrap();
        assert_eq!(finding().status, Status::Ok);
    }
}
