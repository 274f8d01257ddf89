// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A pool file on the host.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use famfs::format::ALLOC_UNIT;
use famfs::media::{Media, PoolFile};
use famfs::sys::dax::Access;
use famfs::system::{holders, mounts};
use famfs::text::error_report::one_line;
use rustix::fs::{Access as Right, statfs};

use super::{Finding, contents};
use crate::output::human;

/// Examines a pool file.
pub fn examine(path: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let pool = match PoolFile::open(path, Access::Read) {
        Ok(pool) => pool,
        Err(err) => {
            let mend = match path.try_exists() {
                Ok(false) => format!("vhost-famfs pool create {} --size 8G", path.display()),
                _ => format!("vhost-famfs pool inspect {}", path.display()),
            };
            return vec![Finding::failed("pool", one_line(&err), mend)];
        }
    };
    findings.push(Finding::ok("pool", format!("{}, {}", path.display(), human(pool.len()))));
    findings.push(access(path));
    findings.push(memory(path));
    let len = pool.len() + pool.origin();
    findings.push(if len % ALLOC_UNIT == 0 {
        let view = pool.view();
        Finding::ok(
            "view",
            format!("{}, famfs starts at {}", view.name(), human(view.data_offset())),
        )
    } else {
        let whole = len.next_multiple_of(ALLOC_UNIT);
        let mend = format!("truncate -s {whole} {}, while nothing uses it", path.display());
        Finding::failed("view", format!("{len} bytes, expected a multiple of 2 MiB"), mend)
    });
    findings.push(users(path));
    let famfs = format!("famfs --pool {}", path.display());
    contents::examine(&pool, &format!("{famfs} fsck"), &format!("{famfs} mkfs"), &mut findings);
    findings
}

fn access(path: &Path) -> Finding {
    match rustix::fs::access(path, Right::READ_OK | Right::WRITE_OK) {
        Ok(()) => Finding::ok("access", "readable and writable"),
        Err(err) => {
            let mend = format!("chown or chmod {}, or run as another user", path.display());
            Finding::warning("access", format!("not writable: {err}"), mend)
        }
    }
}

/// What kind of memory the pool is.
fn memory(path: &Path) -> Finding {
    let stat = match statfs(path) {
        Ok(stat) => stat,
        Err(err) => {
            return Finding::skipped("memory", err.to_string(), "use a mounted file system");
        }
    };
    match stat.f_type {
        libc::HUGETLBFS_MAGIC => Finding::ok("memory", "hugetlbfs"),
        libc::TMPFS_MAGIC if uses_huge_pages(path) => {
            Finding::ok("memory", "tmpfs with huge pages")
        }
        libc::TMPFS_MAGIC => Finding::ok(
            "memory",
            "tmpfs with 4 KiB pages; a tmpfs mounted with huge=always has pages of 2 MiB",
        ),
        _ if path.metadata().is_ok_and(|metadata| !metadata.is_file()) => {
            Finding::ok("memory", "a device")
        }
        _ => Finding::ok("memory", "a file on a disk: data that guests store goes to the disk"),
    }
}

/// Whether the tmpfs of a path was mounted with huge pages.
fn uses_huge_pages(path: &Path) -> bool {
    let mount = mounts::around(&path.canonicalize().unwrap_or_default());
    let huge = ["huge=always", "huge=within_size"];
    mount.is_ok_and(|mount| {
        mount.is_some_and(|mount| mount.options.split(',').any(|option| huge.contains(&option)))
    })
}

/// Who holds the pool's lock. Users are no problem, but worth reporting.
fn users(path: &Path) -> Finding {
    let metadata = path.metadata();
    let holders = metadata.map_or_else(|_| Vec::new(), |m| holders::of_lock(m.dev(), m.ino()));
    match holders.is_empty() {
        true => Finding::ok("in use", "not in use"),
        false => Finding::ok("in use", format!("locked{}", holders::by(&holders))),
    }
}
