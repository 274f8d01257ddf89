// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Target: from a log to a tree of directories and files. Input: a file system ([`crate::image`]);
//! the choice [`Choices::EXTRA`] puts a symbolic link that leads out of the tree where the log may
//! name a path.
//!
//! A plain directory stands for the mounted file system: only the call that gives a file its memory
//! differs, which is a length here.
//!
//! Invariants:
//! * the tree is the plan's: every name exists with its type, size and mode, and nothing else does;
//! * nothing is made outside of the tree, and what a link leads to stays as it was;
//! * a second replay makes nothing and finds everything.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use famfs::format::extension::NO_ENTRY;
use famfs::format::map::Memory;
use famfs::kernel::apply::Applied;
use famfs::kernel::beneath::Root;
use famfs::kernel::grow::{How, grow};
use famfs::kernel::target::{Backed, Backing, Target};
use famfs::replay::tree::object::ObjectKind;
use famfs::replay::{Contents, Owner, Plan};

use crate::image::{self, Choices};

/// The name of the link; a corpus entry has a log with paths below it.
const LINK: &str = "a";
/// Highest number of names to make, for speed.
const MAX_NODES: u64 = 64;

/// Type (whether a directory), size and mode by path.
type Found = BTreeMap<Vec<u8>, (bool, u64, u32)>;

/// A plain file system stands for the kernel's famfs: only the length of a file is kept.
struct Plain;

impl Backing for Plain {
    fn give(&self, file: BorrowedFd<'_>, size: u64, _: &Memory) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(file, size)?)
    }

    fn compare(&self, _: BorrowedFd<'_>, _: u64, _: &Memory) -> io::Result<Backed> {
        Ok(Backed::Unknown)
    }

    /// Files belong to this process's user, so that no privileges are needed; they can be read, and
    /// directories searched, so that the whole tree can be checked.
    fn owner(&self, owner: Owner) -> Owner {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Owner { uid, gid, mode: owner.mode | 0o700 }
    }
}

/// Runs the target.
///
/// # Panics
/// When an invariant does not hold, or no temporary directory can be made.
pub fn run(data: &[u8]) {
    let (media, choices) = image::parse(data);
    let Ok(contents) = Contents::read(&media) else { return };
    let plan = &contents.plan;
    let names = plan.tree().counts().names;
    if names == 0 || names > MAX_NODES {
        return;
    }
    let dir = tempfile::tempdir_in(memory_dir()).expect("no temporary directory");
    let (inside, outside) = (dir.path().join("inside"), dir.path().join("outside"));
    for made in [&inside, &outside] {
        fs::create_dir(made).expect("no directory");
    }
    let link = choices.has(Choices::EXTRA);
    if link {
        symlink(&outside, inside.join(LINK)).expect("no link");
    }
    let root = Root::new(File::open(&inside).expect("just made").into());
    let target = Target::new(&root, &Plain);
    let fresh = How { fresh: true, ..How::default() };
    let first = grow(&target, plan.tree(), fresh, &mut |_| {});
    check(plan, &first, &inside, link);
    let again = grow(&target, plan.tree(), How::default(), &mut |_| {});
    assert_eq!(again.made(), 0, "a second replay makes something");
    assert_eq!(again.existed, first.made());
    assert_eq!(again.errors.len(), first.errors.len());

    assert_eq!(fs::read_dir(&outside).expect("it was there").count(), 0, "left the tree");
    assert_eq!(fs::read_dir(dir.path()).expect("it was there").count(), 2, "left the tree");
}

/// Where files cost no disk access.
fn memory_dir() -> &'static Path {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { shm } else { Path::new("/tmp") }
}

/// Compares the tree with the plan.
fn check(plan: &Plan, applied: &Applied, inside: &Path, link: bool) {
    let mut expected = Found::new();
    let mut failed = 0;
    let _ = plan.tree().walk(NO_ENTRY, |path, listed| {
        let mut parts = path.split(|&byte| byte == b'/');
        if link && parts.next() == Some(LINK.as_bytes()) {
            // What is below it is not even tried.
            failed += usize::from(parts.next().is_none());
            return Ok::<(), ()>(());
        }
        let (is_dir, size) = match &listed.object.kind {
            ObjectKind::Dir { .. } => (true, 0),
            ObjectKind::File { size, .. } => (false, *size),
            ObjectKind::Symlink { .. } => return Ok(()),
        };
        let mode = Plain.owner(listed.object.owner).mode;
        expected.insert(path.to_vec(), (is_dir, size, mode));
        Ok(())
    });
    let mut found = Found::new();
    walk(inside, inside, &mut found);
    assert!(found == expected, "the tree is not the plan: {found:?}, expected {expected:?}");
    assert_eq!(applied.existed, 0);
    assert_eq!(applied.errors.len(), failed);
}

fn walk(root: &Path, dir: &Path, found: &mut Found) {
    for entry in fs::read_dir(dir).expect("a directory of ours") {
        let path = entry.expect("an entry of ours").path();
        let metadata = path.symlink_metadata().expect("a file of ours");
        if metadata.is_symlink() {
            continue;
        }
        let size = if metadata.is_dir() { 0 } else { metadata.size() };
        let below = path.strip_prefix(root).expect("it is in there").as_os_str().as_bytes();
        let mode = metadata.permissions().mode() & 0o7777;
        found.insert(below.to_vec(), (metadata.is_dir(), size, mode));
        if metadata.is_dir() {
            walk(root, &path, found);
        }
    }
}
