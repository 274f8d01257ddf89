// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Huge pages for a test, which takes root.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

/// The host's number of pages of 2 MiB; what is written to it is what there should be.
pub const NR_HUGEPAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

/// Reserved huge pages of 2 MiB and a mount of them; given back at the end.
pub struct HugePages {
    before: u64,
    mount: tempfile::TempDir,
}

impl HugePages {
    /// Reserves so many more than there are; `None` if this host has not so many, or does not let
    /// us.
    ///
    /// # Errors
    /// There is no temporary directory, or no mount(8).
    pub fn reserve(count: u64) -> io::Result<Option<Self>> {
        let Some(before) = number() else { return Ok(None) };
        if fs::write(NR_HUGEPAGES, (before + count).to_string()).is_err() {
            return Ok(None);
        }
        let pages = Self { before, mount: tempfile::tempdir()? };
        if number() != Some(before + count) {
            return Ok(None);
        }
        let mut mount = Command::new("mount");
        mount.args(["-t", "hugetlbfs", "-o", "pagesize=2M", "none"]).arg(pages.path());
        Ok(mount.status()?.success().then_some(pages))
    }

    /// Where the pages are mounted.
    pub fn path(&self) -> &Path {
        self.mount.path()
    }
}

fn number() -> Option<u64> {
    fs::read_to_string(NR_HUGEPAGES).ok()?.trim().parse().ok()
}

impl Drop for HugePages {
    fn drop(&mut self) {
        // Says that there is no mount, if it could not be made.
        let _ = Command::new("umount").arg(self.path()).output();
        let _ = fs::write(NR_HUGEPAGES, self.before.to_string());
    }
}
