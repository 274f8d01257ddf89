// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks whether the host has enough free huge pages, and prints the command that reserves more
//! (Documentation/admin-guide/mm/hugetlbpage.rst of the kernel).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A 1 GiB page needs 2^18 adjacent pages, which the kernel rarely finds once it has run for a
/// while.
const GIGANTIC: u64 = 1 << 30;

/// The host's huge pages of one size, on one NUMA node or on all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HugePages {
    directory: PathBuf,
    page_size: u64,
    total: u64,
    free: u64,
}

/// There are too few huge pages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "needs {needed} huge pages of {} KiB, but {free} are free; reserve them with\n  echo {total} > \
     {}{}",
    .page_size >> 10,
    .file.display(),
    if *.page_size >= GIGANTIC { "\nor, if that does not find enough, with hugepagesz=1G \
                                  hugepages=N on the kernel command line" } else { "" }
)]
pub struct TooFew {
    page_size: u64,
    needed: u64,
    free: u64,
    total: u64,
    file: PathBuf,
}

impl HugePages {
    /// Reads the kernel's counts for pages of `page_size` bytes. Pages that others have reserved
    /// but not yet allocated do not count as free.
    pub fn read(page_size: u64, node: Option<u32>) -> io::Result<Self> {
        let base = match node {
            None => "/sys/kernel/mm/hugepages".to_owned(),
            Some(node) => format!("/sys/devices/system/node/node{node}/hugepages"),
        };
        Self::read_in(Path::new(&base), page_size)
    }

    fn read_in(base: &Path, page_size: u64) -> io::Result<Self> {
        let directory = base.join(format!("hugepages-{}kB", page_size >> 10));
        let number = |name: &str| -> io::Result<u64> {
            let text = fs::read_to_string(directory.join(name))?;
            text.trim().parse().map_err(io::Error::other)
        };
        // There is no per-node count of reserved pages.
        let reserved = number("resv_hugepages").unwrap_or(0);
        let (total, free) = (number("nr_hugepages")?, number("free_hugepages")?);
        let free = free.saturating_sub(reserved);
        Ok(Self { directory, page_size, total, free })
    }

    /// Fails if `bytes` do not fit.
    pub fn check(&self, bytes: u64) -> Result<(), TooFew> {
        let needed = bytes.div_ceil(self.page_size);
        if needed <= self.free {
            return Ok(());
        }
        Err(TooFew {
            page_size: self.page_size,
            needed,
            free: self.free,
            total: self.total.saturating_add(needed - self.free),
            file: self.directory.join("nr_hugepages"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_command_that_reserves_the_missing_pages() {
        let dir = tempfile::tempdir().unwrap();
        let pages = dir.path().join("hugepages-2048kB");
        fs::create_dir(&pages).unwrap();
        for (name, value) in
            [("nr_hugepages", "10"), ("free_hugepages", "6"), ("resv_hugepages", "4")]
        {
            fs::write(pages.join(name), value).unwrap();
        }
        let found = HugePages::read_in(dir.path(), 2 << 20).unwrap();
        assert_eq!(found.check(4 << 20), Ok(()));
        assert_eq!(
            found.check(16 << 20).unwrap_err().to_string(),
            format!(
                "needs 8 huge pages of 2048 KiB, but 2 are free; reserve them with\n  echo 16 > \
                 {}/nr_hugepages",
                pages.display()
            )
        );
    }
}
