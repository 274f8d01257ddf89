// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Loads kernel modules: first those needed to reach the root, then, while systemd starts, those
//! that systemd does not need.

use std::fs::{self, File};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow};
use guest::given;
use protocol::credentials::{NETWORK, NO_POOL, NOTIFY_SOCKET, VSOCK};
use rustix::cstr;
use rustix::io::Errno;
use rustix::system::finit_module;

/// The directory for uncompressed modules in an initrd.
pub const INITRD_DIR: &str = "/modules";
/// The list of an initrd. A list names the files of modules, relative to its own directory, one per
/// line, each after the modules that it needs. A second word restricts a module to certain kinds of
/// machines, separated by commas: kinds of root, or [`POOL`]. An empty line separates modules that
/// do not need each other: both parts are loaded at the same time.
pub const INITRD: &str = "/modules/order";
/// The list of a root.
pub const ROOT: &str = "/usr/lib/appliance/modules";

/// The kinds of modules that only machines with a pool need, only those with a network, and only
/// those that talk to the host over vsock.
const POOL: &str = "pool";
const NETWORKED: &str = "network";
const OVER_VSOCK: &str = "vsock";

/// Loads the modules of a list that all machines need, or that one of these kinds needs.
pub fn load(list: &str, kinds: &[&str]) -> Result<()> {
    let order = fs::read_to_string(list).with_context(|| format!("cannot read {list}"))?;
    let Some((first, second)) = order.split_once("\n\n") else {
        return load_part(list, &order, kinds);
    };
    thread::scope(|scope| {
        let second = scope.spawn(|| load_part(list, second, kinds));
        load_part(list, first, kinds)?;
        second.join().unwrap_or_else(|_| Err(anyhow!("a thread that loads modules panicked")))
    })
}

fn load_part(list: &str, part: &str, kinds: &[&str]) -> Result<()> {
    for name in wanted(part, kinds) {
        let path = Path::new(list).with_file_name(name);
        if is_loaded(&path) {
            continue;
        }
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        match finit_module(&file, cstr!(""), 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot load {}", path.display()));
            }
        }
    }
    Ok(())
}

/// The kinds of modules in [`ROOT`] that this machine needs.
pub fn kinds_of_this_machine() -> Vec<&'static str> {
    let kinds = [
        (POOL, !given::has(NO_POOL)),
        (NETWORKED, given::has(NETWORK)),
        (OVER_VSOCK, given::has(VSOCK) || given::has(NOTIFY_SOCKET)),
    ];
    kinds.into_iter().filter(|(_, is_needed)| *is_needed).map(|(kind, _)| kind).collect()
}

/// The files that a list names for these kinds.
fn wanted<'a>(list: &'a str, kinds: &[&str]) -> Vec<&'a str> {
    let lines = list.lines().map(|line| line.split_once(' ').unwrap_or((line, "")));
    lines
        .filter(|(_, only)| only.is_empty() || only.split(',').any(|kind| kinds.contains(&kind)))
        .map(|(name, _)| name)
        .collect()
}

/// Whether the kernel already has a module, by the name of its file.
fn is_loaded(path: &Path) -> bool {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
    Path::new("/sys/module").join(name).exists()
}

#[cfg(test)]
mod tests {
    use super::wanted;

    #[test]
    fn modules_are_for_all_or_for_some() {
        let list = "virtio_blk.ko disk,verity\nerofs.ko\nnd_pmem.ko pmem\n";
        let table: [(&[&str], &[&str]); 4] = [
            (&["disk"], &["virtio_blk.ko", "erofs.ko"]),
            (&["verity"], &["virtio_blk.ko", "erofs.ko"]),
            (&["pmem"], &["erofs.ko", "nd_pmem.ko"]),
            (&[], &["erofs.ko"]),
        ];
        for (kinds, expected) in table {
            assert_eq!(wanted(list, kinds), expected, "{kinds:?}");
        }
    }
}
