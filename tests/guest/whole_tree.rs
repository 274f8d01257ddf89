// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A log with all that extensions have, in a mount of the kernel.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use famfs::format::path::RelPath;
use famfs::media::PoolFile;
use famfs::replay::{Attributes, Owner, Time};
use famfs::sys::dax::Access;
use famfs::write::layout::Layout;
use famfs::write::volume::OfflineVolume;
use famfs::write::writer::{WriteError, Writer};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use trees::{Kind, Rules, Tree};
use vm_tests::{
    Artifacts, BOOT, Cluster, Member, Node, Pool, Session, View, read_tree, send_trees,
};

use super::script::{json, run};
use super::{MEMORY, POOL, python};

/// What the trees are about.
const TREES: [&str; 6] = ["names", "deep", "links", "sizes", "sparse", "times"];

/// A pool that the host wrote entry by entry, and a VM that mounts it.
pub fn scenario(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let pool = Pool::create(artifacts, POOL, POOL, View::Devdax)?;
    pool.mkfs(&[])?;
    python::copy(&pool, artifacts)?;
    let host = tempfile::tempdir().context("no temporary directory")?;
    for name in TREES {
        trees::plant(name, &host.path().join(name))?;
    }
    write(&pool, host.path())?;
    let members = vec![Member::new("master", true)];
    let cluster = Cluster::start(artifacts, &pool, MEMORY, members)?;
    cluster.wait_ready(BOOT)?;
    let node = cluster.node("master")?;
    send_trees(artifacts, node)?;

    session.check("the mount is the tree of the host", || {
        TREES.iter().try_for_each(|name| same(node, host.path(), name, name))
    });
    session.check("a replay finds all of it and makes nothing", || {
        let report = json(node, "famfs logplay --json /mnt/famfs")?;
        let made = ["files", "directories", "symlinks", "links", "errors"].map(|key| &report[key]);
        ensure!(made.iter().all(|count| **count == 0) && report["existed"] != 0, "{report}");
        run(node, "famfs check /mnt/famfs").map(drop)
    });
    python::checks(session, node);
    session.check("links that lead out are left out of a mount with safe links", || {
        run(
            node,
            "systemctl stop famfs-watch
             famfs umount /mnt/famfs
             famfs attach --safe-links
             [[ ! -L /mnt/famfs/out && -L /mnt/famfs/inside ]]
             famfs logplay /mnt/famfs
             [[ ! -L /mnt/famfs/out ]]
             famfs umount /mnt/famfs
             famfs attach
             [[ -L /mnt/famfs/out ]]",
        )
        .map(drop)
    });
    session.check("what is made on the mount is noted as played", || {
        run(
            node,
            "readlink /mnt/famfs/.meta/.played | grep -q ' complete$'
             famfs creat -s 5000 -S 3 /mnt/famfs/new
             famfs rm /mnt/famfs/inside
             readlink /mnt/famfs/.meta/.played | grep -q ' complete$'
             famfs verify -S 3 -f /mnt/famfs/new
             [[ ! -L /mnt/famfs/inside ]]
             famfs logplay /mnt/famfs && famfs check /mnt/famfs",
        )
        .map(drop)
    });
    session.check("it shuts down in order", || cluster.end());
    session.check("the host finds the pool clean", || pool.famfs(["fsck"]).map(drop));
    Ok(())
}

/// Compares a tree of a VM with one of the host.
fn same(node: &Node, host: &Path, source: &str, path: &str) -> Result<()> {
    let found = read_tree(node, &format!("/mnt/famfs/{path}"), &[])?;
    let mut expected = Tree::read(&host.join(source))?;
    // Only files have several names in a famfs: of a link there is a second one.
    for entry in expected.entries.values_mut() {
        if matches!(entry.kind, Kind::Symlink(_)) {
            entry.same_as = None;
        }
    }
    trees::compare(&expected, &found, Rules::default())
        .none()
        .with_context(|| format!("tree {source}"))
}

/// Writes a directory of the host into a pool.
fn write(pool: &Pool, dir: &Path) -> Result<()> {
    let volume = OfflineVolume::new(PoolFile::open(pool.path(), Access::Write)?);
    let mut writer = Writer::open(&volume, None)?;
    let mut first_names = HashMap::new();
    add(&mut writer, dir, dir, &mut first_names)?;
    let link = |writer: &mut Writer<'_>, name: &str, target: &str| {
        writer.symlink(
            &RelPath::new(name.as_bytes())?,
            target.as_bytes(),
            attributes(&dir.metadata()?),
        )?;
        Ok::<(), anyhow::Error>(())
    };
    link(&mut writer, "out", "/etc/passwd")?;
    link(&mut writer, "inside", "names")?;
    Ok(writer.commit()?)
}

fn attributes(metadata: &Metadata) -> Attributes {
    let (uid, gid, mode) = (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777);
    let nsec = u32::try_from(metadata.mtime_nsec()).unwrap_or(0);
    let mtime = Some(Time { sec: metadata.mtime(), nsec });
    Attributes { owner: Owner { uid, gid, mode }, mtime }
}

fn add(
    writer: &mut Writer<'_>,
    root: &Path,
    dir: &Path,
    first_names: &mut HashMap<u64, RelPath>,
) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let metadata = path.symlink_metadata()?;
        let inside = RelPath::new(path.strip_prefix(root)?.as_os_str().as_bytes())?;
        let new = attributes(&metadata);
        if metadata.is_dir() {
            writer.mkdir(&inside, new)?;
            add(writer, root, &path, first_names)?;
        } else if metadata.is_symlink() {
            writer.symlink(&inside, fs::read_link(&path)?.as_os_str().as_bytes(), new)?;
        } else if let Some(first) = first_names.get(&metadata.ino()) {
            writer.link(first, &inside)?;
        } else {
            first_names.insert(metadata.ino(), inside.clone());
            file(writer, &path, &inside, new, metadata.len())?;
        }
    }
    Ok(())
}

/// A file, with its holes.
fn file(
    writer: &mut Writer<'_>,
    path: &Path,
    inside: &RelPath,
    attributes: Attributes,
    size: u64,
) -> Result<()> {
    let source = File::open(path)?;
    let layout = Layout::new(size, data_of(&source)?);
    let data: Vec<_> = layout.data().collect();
    let room = writer.allocate(inside, layout)?;
    let error = |source| WriteError::Volume { action: "write", path: inside.clone(), source };
    writer.create(inside, attributes, room, |bytes| {
        for range in data {
            let mut part = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
            source.read_exact_at(&mut part, range.start).map_err(error)?;
            bytes.write(range.start, &part).map_err(error)?;
        }
        Ok::<(), WriteError>(())
    })?;
    Ok(())
}

/// The ranges of a file that are no holes.
fn data_of(file: &File) -> Result<Vec<Range<u64>>> {
    let (mut ranges, mut at) = (Vec::new(), 0);
    loop {
        match seek(file, SeekFrom::Data(at)) {
            Err(Errno::NXIO) => return Ok(ranges),
            start => {
                let start = start?;
                at = seek(file, SeekFrom::Hole(start))?;
                ranges.push(start..at);
            }
        }
    }
}
