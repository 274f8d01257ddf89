// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Huge pages for a test; needs root.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

/// The host's number of 2 MiB pages; writing changes it.
pub const NR_HUGEPAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

/// Reserved 2 MiB pages and a mount for them; both are removed at the end.
pub struct HugePages {
    before: u64,
    mount: tempfile::TempDir,
}

impl HugePages {
    /// Reserves additional pages; `None` if this host has too few, or does not allow it.
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
        // Fails if the mount could not be made.
        let _ = Command::new("umount").arg(self.path()).output();
        let _ = fs::write(NR_HUGEPAGES, self.before.to_string());
    }
}
