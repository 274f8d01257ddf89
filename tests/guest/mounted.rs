// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests every command on a mounted famfs: mounting by hand and through mount(8), the commands that
//! examine a mount, and the examples in helps and documents that need a guest.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vm_tests::{Artifacts, BOOT, Cluster, Member, Node, Pool, Session, View};

use super::script::{LIMIT, json, refused, run};
use super::{MEMORY, POOL, layers};

/// Bytes of host memory that the files occupy.
const CONTENT: u64 = 512 << 20;

/// The examples, in a working order.
const EXAMPLES: &str = include_str!("examples.sh");

/// Of examples that fail, the line is what a reader of the report needs. What is in the background
/// would hold the output open.
const TRAPS: &str = "
trap 'echo \"line $LINENO: $BASH_COMMAND\" >&2' ERR
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
";

/// One VM whose pool is not attached at boot.
pub fn scenario(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let pool = Pool::create(artifacts, POOL, CONTENT, View::Devdax)?;
    pool.mkfs(&[])?;
    pool.famfs(["creat", "--size", "8m", "--seed", "7", "/large"])?;
    pool.famfs(["mkdir", "/dir"])?;
    pool.famfs(["creat", "--size", "1m", "--seed", "8", "/dir/small"])?;
    let members = vec![Member::new("by-hand", true).without_attach()];
    let cluster = Cluster::start(artifacts, &pool, MEMORY, members)?;
    cluster.wait_ready(BOOT)?;
    let node = cluster.node("by-hand")?;

    session.check("a dry attach names what would be loaded, and loads nothing", || {
        let report = json(node, "famfs attach --dry-run --json --timeout 0")?;
        let modules = report["modules"].as_array().context("no modules")?;
        ensure!(modules.iter().any(|name| name == "famfs"), "{report}");
        run(node, "[[ ! -e /sys/module/famfs ]] && ! mountpoint -q /mnt/famfs").map(drop)
    });
    session.check("a dry attach names the device that it would bind", || {
        run(
            node,
            "modprobe -a virtio_pmem nd_pmem dax_pmem fsdev_dax
             until [[ -e /dev/dax0.0 ]]; do sleep 0.1; done",
        )?;
        let report = json(node, "famfs attach --dry-run --json")?;
        let device = &report["devices"][0];
        ensure!(device["device"] == "/dev/dax0.0" && device["action"] == "bind", "{report}");
        run(node, "[[ ! -e /sys/bus/dax/drivers/fsdev_dax/dax0.0 ]]").map(drop)
    });
    session.check("mount loads the module, binds the device, and plays the log", || {
        let mount = "famfs mount --load-module --set-daxmode --json /dev/dax0.0 /mnt/famfs";
        let report = json(node, mount)?;
        ensure!(report["files"] == 2 && report["directories"] == 1, "{report}");
        run(node, "famfs verify -m /mnt/famfs/large,7 -m /mnt/famfs/dir/small,8").map(drop)
    });
    session.check("FUSE is refused, unless --nofuse is given", || {
        let text = refused(node, "FAMFS_MODE=fuse famfs logplay /mnt/famfs", 1)?;
        ensure!(text.contains("FAMFS_MODE=fuse") && text.contains("--nofuse"), "{text}");
        run(node, "FAMFS_MODE=fuse famfs logplay --nofuse /mnt/famfs")?;
        run(node, "FAMFS_MODE=v1 famfs logplay /mnt/famfs").map(drop)
    });
    strict(session, node);
    looking(session, node);
    writing(session, node);
    mounting(session, node);
    layers::checks(session, artifacts, node);
    session.check("an example that fails ends what it has started", || {
        let start = Instant::now();
        let said = refused(node, &format!("{TRAPS}sleep 1000 &\nfalse\n"), 1)?;
        ensure!(said.contains("line ") && start.elapsed() < LIMIT / 2, "{said}");
        Ok(())
    });
    session.check("every example of a guest runs", || {
        run(node, "mountpoint -q /mnt/famfs && famfs umount /mnt/famfs || true")?;
        run(node, &format!("{TRAPS}{EXAMPLES}")).map(drop)
    });
    session.check("it shuts down in order", || cluster.end());
    session.check("the host finds the pool clean", || pool.famfs(["fsck"]).map(drop));
    Ok(())
}

/// What programs other than the tools may do in their own mount.
fn strict(session: &mut Session, node: &Node) {
    session.check("what ordinary commands would do to this VM only is refused", || {
        options(node, "FS-OPTIONS", &["strict"])?;
        for command in [
            "touch stranger",
            "touch large",
            "cp /etc/passwd stranger",
            "mkdir stranger",
            "rm large",
            "rm -r dir",
            "mv large stranger",
            "ln large stranger",
            "ln -s large stranger",
            "chmod 600 large",
            "chown 1000 large",
        ] {
            let text = refused(node, &format!("cd /mnt/famfs && {command}"), 1)?;
            ensure!(text.contains("Operation not permitted"), "{command}: {text}");
        }
        run(node, "[[ ! -e /mnt/famfs/stranger ]] && famfs check /mnt/famfs")?;
        let text =
            refused(node, "sleep 6; mkdir /mnt/famfs/stranger || dmesg | tail -2 && false", 1)?;
        ensure!(text.contains("famfs: dax0.0: ") && text.contains("famfs mkdir"), "{text}");
        Ok(())
    });
    session.check("data is written by whom the mode allows, for all VMs", || {
        run(
            node,
            "cd /mnt/famfs
             head -c 5000 large > /tmp/head
             dd if=/tmp/head of=large conv=notrunc,fsync status=none
             famfs verify -S 7 -f large",
        )
        .map(drop)
    });
    session.check("a remount lifts it, for other tools", || {
        run(node, "mount -i -o remount,nostrict /mnt/famfs && rmdir $(mktemp -d -p /mnt/famfs)")
            .map(drop)
    });
}

/// The commands that examine a mount.
fn looking(session: &mut Session, node: &Node) {
    session.check("verify tells which of several files is wrong", || {
        let text =
            refused(node, "famfs verify -m /mnt/famfs/large,7 -m /mnt/famfs/dir/small,9", 1)?;
        ensure!(text.contains("\"dir/small\" differs from seed 9 at offset 0"), "{text}");
        ensure!(!text.contains("\"large\""), "{text}");
        refused(node, "famfs verify --quiet -m /mnt/famfs/none,1", 1).map(drop)
    });
    session.check("check finds all right, and a file of another program wrong", || {
        let report = json(node, "famfs check --json /mnt/famfs")?;
        ensure!(report["files"] == 2 && report["directories"] == 1, "{report}");
        ensure!(report["problems"] == Value::Array(Vec::new()), "{report}");
        run(node, "touch /mnt/famfs/stranger")?;
        let text = refused(node, "famfs check /mnt/famfs", 1)?;
        ensure!(text.contains("/mnt/famfs/stranger: no map"), "{text}");
        run(node, "rm /mnt/famfs/stranger").map(drop)
    });
    session.check("check counts what is not there yet, and logplay makes it appear", || {
        let report = json(node, "rm /mnt/famfs/large; famfs check --json /mnt/famfs")?;
        ensure!(report["missing"] == 1 && report["files"] == 1, "{report}");
        run(node, "famfs logplay /mnt/famfs && famfs verify -S 7 -f /mnt/famfs/large").map(drop)
    });
    session.check("flush takes files of famfs only", || {
        let report = json(node, "famfs flush --json /mnt/famfs/large /mnt/famfs/dir/small")?;
        ensure!(report["files"][0]["bytes"] == 8 << 20 && report["failed"] == 0, "{report}");
        let text = refused(node, "famfs flush /usr/bin/famfs /mnt/famfs/dir /mnt/famfs/large", 1)?;
        ensure!(text.contains("/usr/bin/famfs: not a famfs file"), "{text}");
        ensure!(text.contains("/mnt/famfs/dir: expected a regular file"), "{text}");
        Ok(())
    });
    session.check("chkread reads superblock and log, and tells them apart", || {
        run(node, "famfs chkread -s /mnt/famfs/.meta/.superblock")?;
        run(node, "famfs chkread -l /mnt/famfs/.meta/.log")?;
        refused(node, "famfs chkread -l /mnt/famfs/.meta/.superblock", 1)?;
        refused(node, "famfs chkread -s /mnt/famfs/.meta/.log", 1).map(drop)
    });
    session.check("fsck and mkfs leave a mounted device alone", || {
        let text = refused(node, "fsck.famfs /dev/dax0.0", 16)?;
        ensure!(text.contains("/mnt/famfs"), "{text}");
        let text = refused(node, "mkfs -t famfs -f /dev/dax0.0", 2)?;
        ensure!(text.contains("is mounted on /mnt/famfs"), "{text}");
        Ok(())
    });
}

/// The commands that write.
fn writing(session: &mut Session, node: &Node) {
    session.check("the kernel refuses a clone, which leaves nothing behind", || {
        let text = refused(node, "famfs clone /mnt/famfs/large /mnt/famfs/crossed", 1)?;
        ensure!(text.contains("two files with the same memory"), "{text}");
        run(node, "[[ ! -e /mnt/famfs/crossed ]] && famfs fsck /mnt/famfs").map(drop)
    });
    session.check("mkdir tells what it made", || {
        let report = json(node, "famfs mkdir -p --json /mnt/famfs/dir/x/y")?;
        ensure!(report["paths"] == serde_json::json!(["dir/x", "dir/x/y"]), "{report}");
        run(node, "[[ -d /mnt/famfs/dir/x/y ]]").map(drop)
    });
}

/// Mounting in all ways, and unmounting.
fn mounting(session: &mut Session, node: &Node) {
    session.check("remount makes the mount read-only, and writable again", || {
        run(node, "famfs mount --remount -o ro /dev/dax0.0 /mnt/famfs")?;
        options(node, "VFS-OPTIONS", &["ro"])?;
        let text = refused(node, "famfs creat -s 1m /mnt/famfs/refused", 1)?;
        ensure!(text.to_lowercase().contains("read-only"), "{text}");
        run(node, "famfs mount -R -o rw /dev/dax0.0 /mnt/famfs")?;
        options(node, "VFS-OPTIONS", &["rw"])?;
        run(node, "famfs creat -s 1m /mnt/famfs/written").map(drop)
    });
    session.check("logplay makes files appear in a read-only mount", || {
        run(
            node,
            "rm /mnt/famfs/large
             mount -i -o remount,bind,ro /mnt/famfs
             touch /mnt/famfs/refused && exit 9
             famfs logplay /mnt/famfs
             famfs verify -S 7 -f /mnt/famfs/large",
        )?;
        options(node, "VFS-OPTIONS", &["ro"])
    });
    session.check("umount refuses what is busy, and names it", || {
        let text = refused(node, "cd /mnt/famfs; famfs umount /mnt/famfs", 1)?;
        ensure!(text.contains("/mnt/famfs is busy"), "{text}");
        let text = refused(node, "famfs umount /mnt/famfs/dir", 1)?;
        ensure!(text.contains("did you mean /mnt/famfs?"), "{text}");
        let report = json(node, "famfs umount --json /mnt/famfs")?;
        ensure!(report["device"] == "/dev/dax0.0" && report["dry_run"] == false, "{report}");
        run(node, "! mountpoint -q /mnt/famfs && fsck.famfs /dev/dax0.0").map(drop)
    });
    session.check("mkmeta makes superblock and log appear after a mount of the kernel", || {
        run(
            node,
            "mount -i -t famfs /dev/dax0.0 /mnt/famfs
             [[ ! -e /mnt/famfs/.meta ]]",
        )?;
        let report = json(node, "famfs mkmeta --json /dev/dax0.0")?;
        ensure!(report["mount_point"] == "/mnt/famfs", "{report}");
        run(
            node,
            "famfs chkread -s /mnt/famfs/.meta/.superblock
             famfs chkread -l /mnt/famfs/.meta/.log
             [[ ! -e /mnt/famfs/large ]]
             famfs umount /mnt/famfs",
        )
        .map(drop)
    });
    session.check("mount(8) mounts, remounts and unmounts", || {
        run(node, "mount -t famfs -o ro,noatime /dev/dax0.0 /mnt/famfs")?;
        options(node, "VFS-OPTIONS", &["ro", "nosuid", "nodev", "noatime"])?;
        run(node, "findmnt -n -o VFS-OPTIONS /mnt/famfs | grep -vq noexec")?;
        options(node, "FS-OPTIONS", &["rw", "strict"])?;
        run(node, "famfs verify -S 7 -f /mnt/famfs/large")?;
        run(node, "mount -o remount,rw /mnt/famfs")?;
        options(node, "VFS-OPTIONS", &["rw"])?;
        run(node, "umount /mnt/famfs")?;
        let text = refused(node, "mount -t famfs -o suid /dev/dax0.0 /mnt/famfs", 1)?;
        ensure!(text.contains("always nosuid"), "{text}");
        let text = refused(node, "mount -t famfs -o size=1g /dev/dax0.0 /mnt/famfs", 1)?;
        ensure!(text.contains("size=1g"), "{text}");
        Ok(())
    });
    session.check("a line of fstab mounts, and mount -f only tries", || {
        run(
            node,
            "echo '/dev/dax0.0 /mnt/famfs famfs ro,nofail,x-systemd.after=a 0 0' > /tmp/fstab
             mount --fstab /tmp/fstab --fake --verbose /mnt/famfs
             mountpoint -q /mnt/famfs && exit 9
             mount --fstab /tmp/fstab --all",
        )?;
        options(node, "VFS-OPTIONS", &["ro"])?;
        run(node, "famfs check /mnt/famfs && famfs umount /mnt/famfs").map(drop)
    });
}

/// Checks that the mount has these options; findmnt(8) lists two kinds.
pub fn options(node: &Node, kind: &str, expected: &[&str]) -> Result<()> {
    let found = run(node, &format!("findmnt --noheadings --output {kind} /mnt/famfs"))?;
    let found = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    for option in expected {
        ensure!(found.split(',').any(|o| o == *option), "{found}, expected {option}");
    }
    Ok(())
}
