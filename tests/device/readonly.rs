// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A read-only VM: whatever its root user does, no byte of the pool changes.

use std::fs::File;

use anyhow::{Context, Result, ensure};
use vhost_famfs::vm::Command;
use vm_tests::{Artifacts, BOOT, Cluster, Member, Node, Pool, Session, Transport, View};

use super::restart::{checksum, same};
use super::{MEMORY, SHORT, poke, text};

const POOL: u64 = 34 << 20;

/// One VM on a pool with a famfs, whose master is absent.
pub fn scenario(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let pool = Pool::create(artifacts, POOL, POOL, View::Raw)?;
    pool.mkfs(&[])?;
    pool.famfs(["creat", "--size", "8m", "--seed", "5", "/file"])?;
    let host = File::open(pool.path()).context("cannot open the pool")?;
    let before = checksum(&host)?;
    let unchanged = || {
        let now = checksum(&host)?;
        ensure!(now == before, "the pool was {before} and is {now}");
        Ok(())
    };
    let scratch = tempfile::tempdir().context("no temporary directory")?;
    let member = Member::new("reader", false)
        .with_transport(Some(Transport::Pmem { readonly: true }))
        .with_credential("famfs.access", "read-only")
        .with_disk(poke::disk(artifacts, scratch.path())?);
    let cluster = Cluster::start(artifacts, &pool, MEMORY, vec![member])?;
    cluster.wait_ready(BOOT)?;
    let reader = cluster.node("reader")?;
    session.check("it reads the file, and mounting changed nothing", || {
        verify(reader)?;
        unchanged()
    });
    session.check("files: remounting for writing, and writing", || {
        try_all(
            reader,
            &[
                "mount -o remount,rw /mnt/famfs",
                "dd if=/dev/zero of=/mnt/famfs/file bs=1M count=8 conv=notrunc,fsync",
                "famfs creat -s 2m -S 1 /mnt/famfs/new",
                "famfs takeover --force /mnt/famfs",
                "rm -f /mnt/famfs/file",
                "famfs umount /mnt/famfs || umount -l /mnt/famfs",
            ],
        )?;
        unchanged()
    });
    session.check("the block device: whole, direct, buffered, made writable, formatted", || {
        try_all(
            reader,
            &[
                "blockdev --setrw /dev/pmem0",
                "dd if=/dev/zero of=/dev/pmem0 bs=1M oflag=direct conv=notrunc",
                "dd if=/dev/zero of=/dev/pmem0 bs=1M conv=notrunc,fsync",
            ],
        )?;
        let mkfs = Command::shell("famfs mkfs --force /dev/pmem0");
        let mkfs = reader.vm.exec(&mkfs, SHORT)?;
        let said = String::from_utf8_lossy(&mkfs.stderr).into_owned();
        ensure!(said.contains("does not keep what is written"), "mkfs: {}: {said}", mkfs.status);
        poke::device(reader, "/dev/pmem0", POOL)?;
        text(reader, "echo 3 > /proc/sys/vm/drop_caches")?;
        unchanged()
    });
    session.check("the memory itself, through /dev/mem", || {
        poke::memory(reader, 0, POOL)?;
        unchanged()
    });
    session.check("after all that the VM runs and reads the pool as it is", || same(&host, reader));
    session.check("and it mounts it again", || {
        text(reader, "famfs attach --mount-point /mnt/famfs")?;
        verify(reader)?;
        unchanged()
    });
    session.check("it shuts down in order", || cluster.end());
    session.check("the pool is still what it was", unchanged);
    Ok(())
}

fn verify(reader: &Node) -> Result<()> {
    text(reader, "famfs verify --seed 5 --file /mnt/famfs/file").map(drop)
}

/// Runs commands that may succeed or fail; only the VM must keep running.
fn try_all(reader: &Node, commands: &[&str]) -> Result<()> {
    for command in commands {
        let output = reader.vm.exec(&Command::shell(command), SHORT)?;
        println!("# {command}: {}", output.status);
    }
    Ok(())
}
