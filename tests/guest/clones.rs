// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Two VMs that both consider themselves the master, like a VM and its clone: the lease keeps them
//! apart.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use vm_tests::{Artifacts, BOOT, Cluster, Member, Node, Pool, Session, View};

use super::script::{LIMIT, json, refused, run};
use super::{MEMORY, POOL};

/// Bytes of host memory that the files occupy.
const CONTENT: u64 = 288 << 20;

/// Starts to write a large file, and stops in the middle, however fast the host is. It runs in its
/// own session, because a stopped process would get a hang-up when the shell ends.
const WRITER: &str = "
    setsid famfs creat --size 256m --seed 3 /mnt/famfs/large >/run/writer.log 2>&1 &
    echo $! >/run/writer
    until [[ -e /mnt/famfs/large ]]; do kill -0 $! || exit 1; done
    kill -STOP $!";

/// A VM with the master's system UUID, and its clone.
pub fn scenario(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let pool = Pool::create(artifacts, POOL, CONTENT, View::Devdax)?;
    pool.mkfs(&[])?;
    let members = vec![Member::new("original", true), Member::new("clone", true)];
    let cluster = Cluster::start(artifacts, &pool, MEMORY, members)?;
    cluster.wait_ready(BOOT)?;
    let (one, two) = (cluster.node("original")?, cluster.node("clone")?);
    let (first, second) = settled(one, two)?;

    session.check("clones: both are the master by name, one holds the lease", || {
        for (node, state) in [(first, "ours"), (second, "alive")] {
            let role = role(node)?;
            ensure!(role["role"] == "master" && role["lease"]["state"] == state, "{role}");
        }
        Ok(())
    });
    session.check("clones: a living master keeps its clone out", || {
        let said = refused(second, "famfs mkdir /mnt/famfs/second", 1)?;
        ensure!(said.contains("another master is at work"), "{said}");
        let said = refused(second, "famfs takeover --yes /mnt/famfs", 3)?;
        ensure!(said.contains("--force"), "{said}");
        Ok(())
    });
    session.check("clones: the lease of a VM that stands still expires", || {
        run(first, WRITER)?;
        signal(first, "STOP")?;
        let outcome = run(second, "famfs mkdir /mnt/famfs/second && famfs fsck /mnt/famfs");
        signal(first, "CONT")?;
        outcome.map(drop)
    });
    session.check("clones: the former master wakes up, and publishes nothing more", || {
        let script = "
            kill -CONT $(cat /run/writer)
            while kill -0 $(cat /run/writer); do sleep 0.1; done 2>/dev/null
            cat /run/writer.log
            famfs logplay /mnt/famfs && famfs fsck /mnt/famfs && famfs ls /mnt/famfs";
        let said = String::from_utf8_lossy(&run(first, script)?.stdout).into_owned();
        ensure!(said.contains("the master's lease was taken by system"), "{said}");
        ensure!(said.contains("second") && !said.contains("large"), "{said}");
        Ok(())
    });
    session.check("clones: with --force the role comes back", || {
        run(first, "famfs takeover --yes --force /mnt/famfs && famfs mkdir /mnt/famfs/third")
            .map(drop)
    });
    session.check("clones: they shut down in order", || cluster.end());
    session.check("clones: the host finds the pool clean", || pool.famfs(["fsck"]).map(drop));
    Ok(())
}

/// Waits until the watch of one of them has the lease, and then until the other one sees its
/// heartbeat. Both may have tried at the same moment.
fn settled<'n>(one: &'n Node, two: &'n Node) -> Result<(&'n Node, &'n Node)> {
    one.wait_watch()?;
    two.wait_watch()?;
    let end = Instant::now() + LIMIT;
    loop {
        let leases = [role(one)?, role(two)?].map(|role| role["lease"]["state"].clone());
        match leases.each_ref().map(Value::as_str) {
            [Some("ours"), Some("alive")] => return Ok((one, two)),
            [Some("alive"), Some("ours")] => return Ok((two, one)),
            _ => ensure!(Instant::now() < end, "not within {LIMIT:?}: {leases:?}"),
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Sends a signal to a VM's process.
fn signal(node: &Node, name: &str) -> Result<()> {
    let pid = node.vm.pid().to_string();
    let status = std::process::Command::new("kill").args(["-s", name, &pid]).status()?;
    ensure!(status.success(), "kill -s {name} {pid}: {status}");
    Ok(())
}

fn role(node: &Node) -> Result<Value> {
    json(node, "famfs role --json /mnt/famfs")
}
