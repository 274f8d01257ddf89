// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What goes on top of a mounted famfs: running programs, a writable layer, images behind the loop
//! driver.

use std::fs;

use anyhow::{Context, ensure};
use trees::{Rules, Tree};
use vhost_famfs::vm::Command;
use vm_tests::{Artifacts, Node, Session, pack_disk, read_tree, send_trees};

use super::mounted::options;
use super::script::{LIMIT, refused, run};

/// Uses a mount point without a mount, of a pool with the directory `/dir`.
pub fn checks(session: &mut Session, artifacts: &Artifacts, node: &Node) {
    programs(session, node);
    session.check("a tree in a VM has the manifest of the same tree on the host", || {
        let program = send_trees(artifacts, node)?;
        let host = tempfile::tempdir().context("no temporary directory")?;
        for name in ["names", "links", "sparse"] {
            let source = host.path().join(name);
            trees::plant(name, &source)?;
            run(node, &format!("{program} plant {name} /tmp/trees/{name}"))?;
            let found = read_tree(node, &format!("/tmp/trees/{name}"), &[])?;
            // Those who run the tests need not be root, as the guest is.
            let rules = Rules { any_owner: true, any_root: true, ..Rules::default() };
            trees::compare(&Tree::read(&source)?, &found, rules).none()?;
        }
        run(node, "rm -r /tmp/trees").map(drop)
    });
    session.check("a writable layer over the shared tree is one mount", || {
        run(
            node,
            "famfs attach
             mkdir -p /tmp/layer/upper /tmp/layer/work /tmp/tree
             mount -t overlay -o nosuid,nodev,lowerdir=/mnt/famfs,upperdir=/tmp/layer/upper,workdir=/tmp/layer/work overlay /tmp/tree
             [[ $(/tmp/tree/dir/script it) = 'ran it' ]]
             echo changed > /tmp/tree/dir/script
             echo new > /tmp/tree/dir/new
             mv /tmp/tree/dir/id /tmp/tree/moved
             [[ $(< /tmp/tree/dir/script) = changed && -x /tmp/tree/moved ]]
             [[ $(/mnt/famfs/dir/script it) = 'ran it' ]]
             [[ -x /mnt/famfs/dir/id && ! -e /mnt/famfs/dir/new ]]
             umount /tmp/tree
             famfs check /mnt/famfs",
        )
        .map(drop)
    });
    session.check("an image of a file system in the pool is mounted read-only", || {
        let host = tempfile::tempdir().context("no temporary directory")?;
        let tree = host.path().join("tree");
        fs::create_dir(&tree).context("cannot make the source")?;
        fs::write(tree.join("file"), "in the image").context("cannot make the source")?;
        let disk = pack_disk(artifacts, &tree, host.path().join("image"), "image")?;
        let image = fs::read(&disk.path).context("cannot read the image")?;
        let script = "cat > /tmp/image
             famfs cp /tmp/image /mnt/famfs/dir/image.erofs >&2
             modprobe loop
             mkdir -p /tmp/tree
             mount -o loop,ro /mnt/famfs/dir/image.erofs /tmp/tree
             cat /tmp/tree/file
             umount /tmp/tree >&2
             famfs umount /mnt/famfs >&2";
        let output = node.run(&Command::shell(script).stdin(image), LIMIT)?;
        ensure!(output.stdout.ends_with(b"in the image"), "{output:?}");
        Ok(())
    });
}

/// Running programs from the mount, and refusing that. The mount is there, with `/dir`.
fn programs(session: &mut Session, node: &Node) {
    session.check("programs and scripts run from the mount, set-ID bits have no effect", || {
        run(
            node,
            "famfs attach
             printf '#!/bin/sh\\necho ran $1' > /tmp/script
             cp /usr/bin/id /tmp/id && chmod 755 /tmp/script && chmod 6755 /tmp/id
             famfs cp /tmp/script /tmp/id /mnt/famfs/dir
             [[ $(stat -c %a /mnt/famfs/dir/id) = 6755 ]]
             [[ $(/mnt/famfs/dir/script it) = 'ran it' ]]
             [[ $(setpriv --reuid 1000 --regid 1000 --clear-groups /mnt/famfs/dir/id -u) = 1000 ]]
             [[ $(setpriv --reuid 1000 --regid 1000 --clear-groups /mnt/famfs/dir/id -g) = 1000 ]]",
        )?;
        options(node, "VFS-OPTIONS", &["nosuid", "nodev"])
    });
    session.check("noexec refuses programs, and a remount keeps it until exec is said", || {
        let device = "/dev/dax0.0 /mnt/famfs";
        let denied = || {
            options(node, "VFS-OPTIONS", &["noexec"])?;
            let text = refused(node, "/mnt/famfs/dir/script it", 126)?;
            ensure!(text.contains("Permission denied"), "{text}");
            anyhow::Ok(())
        };
        run(node, &format!("famfs mount -R -o noexec {device}"))?;
        denied()?;
        run(node, &format!("famfs mount -R -o ro {device} && famfs mount -R -o rw {device}"))?;
        denied()?;
        run(node, "mount -o remount,rw /mnt/famfs")?;
        denied()?;
        run(node, &format!("famfs mount -R -o exec {device} && /mnt/famfs/dir/script it"))?;
        run(node, "famfs umount /mnt/famfs && famfs attach --noexec")?;
        denied()?;
        run(node, "famfs umount /mnt/famfs && mount -t famfs -o noexec /dev/dax0.0 /mnt/famfs")?;
        denied()?;
        run(node, "famfs umount /mnt/famfs").map(drop)
    });
}
