// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A root that has been altered does not run.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use vhost_famfs::vm::{Command, Root};
use vm_tests::{Artifacts, BOOT, Cluster, Member, Node, Pool, Session, View};

const MEMORY: u64 = 512 << 20;
const SHORT: Duration = Duration::from_secs(180);

/// The files that the image needs for this root, in addition to the root itself.
const FILES: [&str; 4] = ["vmlinux", "initrd.cpio", "root.erofs", "root-verity.roothash"];
const ROOT: &str = "root-verity.raw";

pub fn tampered(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let pool = Pool::create(artifacts, 64 << 20, 64 << 20, View::Devdax)?;
    let start = |artifacts: &Artifacts, name| {
        let member = Member::new(name, false).with_transport(None).with_root(Root::Verity);
        Cluster::start(artifacts, &pool, MEMORY, vec![member])
    };
    let sound = start(artifacts, "sound")?;
    session.check("a checked root boots", || {
        sound.wait_ready(BOOT)?;
        let source = source(sound.node("sound")?)?;
        ensure!(source.starts_with("/dev/dm-"), "{source}");
        Ok(())
    });
    session.check("it shuts down in order", || sound.end());
    session.check("one bit of the root changed, and it does not boot", || {
        let image = with_one_bit_changed(artifacts)?;
        let artifacts = Artifacts { image: image.path().to_owned(), ..artifacts.clone() };
        let cluster = start(&artifacts, "tampered")?;
        let node = cluster.node("tampered")?;
        let status = node.vm.wait_exit(BOOT).context("the VM still runs")?;
        let console = fs::read_to_string(node.console_log())?;
        ensure!(console.contains("verity") && console.contains("corrupted"), "{status}: {console}");
        Ok(())
    });
    Ok(())
}

fn source(node: &Node) -> Result<String> {
    let find = Command::new(["findmnt", "--noheadings", "--output", "SOURCE", "/"]);
    Ok(String::from_utf8_lossy(&node.run(&find, SHORT)?.stdout).trim().to_owned())
}

/// A copy of the image with one bit changed in the root's superblock: in the build time, which
/// nobody reads.
fn with_one_bit_changed(artifacts: &Artifacts) -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    for name in FILES {
        std::os::unix::fs::symlink(artifacts.image.join(name), dir.path().join(name))?;
    }
    let copy = dir.path().join(ROOT);
    fs::copy(artifacts.image.join(ROOT), &copy).context("no root with hashes")?;
    let file = File::options().read(true).write(true).open(&copy)?;
    // The first partition begins at 1 MiB (systemd-repart), erofs's superblock 1024 bytes later,
    // and its build time 24 bytes after that.
    let offset = (1 << 20) + 1024;
    let mut magic = [0; 4];
    file.read_exact_at(&mut magic, offset)?;
    ensure!(u32::from_le_bytes(magic) == 0xe0f5_e1e2, "no erofs at {offset}: {magic:x?}");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset + 24)?;
    file.write_all_at(&[byte[0] ^ 1], offset + 24)?;
    Ok(dir)
}
