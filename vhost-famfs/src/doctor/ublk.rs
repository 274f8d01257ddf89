// SPDX-License-Identifier: Apache-2.0 OR MIT
//! User-space block devices, for exporting parts of a pool as disks.

use std::fs;
use std::path::Path;

use super::{Finding, Status};

/// What a module's file may be called, without its ending.
const MODULE: &str = "ublk_drv";

/// Looks at the running kernel.
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
                "only needed for block exports: run as root, or give the device to your group",
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
        let mend = "only needed for block exports: modprobe ublk_drv";
        return Finding::with(CHECK, Status::Absent, "the module ublk_drv is not loaded", mend);
    }
    let found = format!("Linux {release} has no ublk_drv (CONFIG_BLK_DEV_UBLK)");
    let mend = "only needed for block exports: boot a kernel of 6.5 or newer that has it";
    Finding::with(CHECK, Status::Absent, found, mend)
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
        assert_eq!(finding().mend.unwrap(), "only needed for block exports: modprobe ublk_drv");
        fs::create_dir(dir.path().join("dev")).unwrap();
        fs::write(dir.path().join("dev/ublk-control"), "").unwrap();
        assert_eq!(finding().status, Status::Ok);
    }
}
