// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Target: from a log to a tree of directories and files. Input: a file system ([`crate::image`]);
//! the choice [`Choices::EXTRA`] puts a symbolic link that leads out of the tree where the log may
//! name a path.
//!
//! A plain directory stands for the mounted file system: only the call that gives a file its memory
//! differs, which is a length here.
//!
//! Invariants:
//! * the tree is the plan: every node exists with its type, size and mode, and nothing else does;
//! * nothing is made outside of the tree, and what a link leads to stays as it was;
//! * a second replay makes nothing and finds everything.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use famfs::format::map::FileMap;
use famfs::format::path::RelPath;
use famfs::kernel::apply::{Applied, Tree, apply};
use famfs::kernel::beneath::Root;
use famfs::replay::{Contents, NodeKind, Owner, Plan};

use crate::image::{self, Choices};

/// The name of the link; a corpus entry has a log with paths below it.
const LINK: &str = "a";
/// Highest number of nodes to make, for speed.
const MAX_NODES: usize = 64;

/// Type (whether a directory), size and mode by path.
type Found = BTreeMap<Vec<u8>, (bool, u64, u32)>;

/// A directory below a temporary one, with a stranger beside it.
struct Plain {
    root: Root,
}

impl Plain {
    /// Files belong to this process's user, so that no privileges are needed; every directory can
    /// be searched, so that the whole tree can be checked.
    fn owner(owner: Owner, is_dir: bool) -> Owner {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Owner { uid, gid, mode: if is_dir { owner.mode | 0o700 } else { owner.mode } }
    }
}

impl Tree for Plain {
    fn existing(&self, path: &RelPath) -> io::Result<Option<(bool, u64)>> {
        self.root.existing(path)
    }

    fn memory(&self, _: &RelPath) -> io::Result<Option<FileMap>> {
        Ok(None)
    }

    fn unlink(&self, path: &RelPath, is_dir: bool) -> io::Result<()> {
        self.root.remove(path, is_dir)
    }

    fn make_dir(&self, path: &RelPath, owner: Owner) -> io::Result<()> {
        self.root.make_dir(path, Self::owner(owner, true))
    }

    fn make_file(&self, path: &RelPath, owner: Owner, size: u64, _: &FileMap) -> io::Result<()> {
        let owner = Self::owner(owner, false);
        self.root.make_file(path, owner, |stub| Ok(rustix::fs::ftruncate(stub, size)?)).map(drop)
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
    if plan.nodes().is_empty() || plan.nodes().len() > MAX_NODES {
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
    let tree = Plain { root: Root::new(File::open(&inside).expect("just made").into()) };

    let first = apply(&tree, plan, false, |_| {});
    check(plan, &first, &inside, link);
    let again = apply(&tree, plan, false, |_| {});
    assert_eq!((again.files, again.directories), (0, 0), "a second replay makes something");
    assert_eq!(again.existed, first.files + first.directories);
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
    for node in plan.nodes() {
        let path = node.path.as_bytes();
        if link && path.split(|&byte| byte == b'/').next() == Some(LINK.as_bytes()) {
            continue;
        }
        let (is_dir, size) = match &node.kind {
            NodeKind::Dir => (true, 0),
            NodeKind::File { size, .. } => (false, *size),
        };
        let mode = Plain::owner(node.owner, is_dir).mode;
        expected.insert(path.to_vec(), (is_dir, size, mode));
    }
    let mut found = Found::new();
    walk(inside, inside, &mut found);
    assert!(found == expected, "the tree is not the plan: {found:?}, expected {expected:?}");
    assert_eq!(applied.existed, 0);
    assert_eq!(applied.errors.len(), plan.nodes().len() - expected.len());
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
