// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A clone of a running VM: everything in its memory is that of the original, which goes on. It has
//! to notice, and to leave alone what is the original's.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use vm_tests::{Artifacts, BOOT, Cluster, Member, Node, Pool, Session, Transport, View};

use super::script::{LIMIT, json, refused, run};
use super::{MEMORY, POOL};

/// Bytes of host memory that the files occupy.
const CONTENT: u64 = 96 << 20;
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Starts to write a file and stops in the middle. It runs in its own session, because a stopped
/// process would get a hang-up when the shell ends.
const WRITER: &str = "
    setsid famfs creat --size 64m --seed 3 /mnt/famfs/large >/run/writer.log 2>&1 &
    echo $! >/run/writer
    until [[ -e /mnt/famfs/large ]]; do kill -0 $! || exit 1; done
    kill -STOP $!";

/// Lets it go on; prints what it said.
const GO_ON: &str = "
    kill -CONT $(cat /run/writer)
    while kill -0 $(cat /run/writer); do sleep 0.1; done 2>/dev/null
    cat /run/writer.log";

/// The master, and its clone.
pub fn scenario(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let pool = Pool::create(artifacts, POOL, CONTENT, View::Devdax)?;
    pool.mkfs(&[])?;
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let state = dir.path().join("state");
    // QEMU can save only a VM whose pool it maps itself.
    let vm =
        |name| Member::new(name, true).with_transport(Some(Transport::Pmem { readonly: false }));
    let mut originals = Cluster::start(artifacts, &pool, MEMORY, vec![vm("original")])?;
    originals.wait_ready(BOOT)?;
    let original = originals.node("original")?;
    original.wait_watch()?;
    wait_lease(original, "ours")?;
    run(original, WRITER)?;
    save(original, &state).context("cannot save the VM")?;
    let incoming = format!("file:{}", state.display());
    // The pool is not in the state: it is shared.
    let options = ["-global", "migration.x-ignore-shared=on", "-incoming", &incoming];
    let clone = vm("clone").with_qemu_args(&options.map(str::to_owned));
    let clones = Cluster::start(artifacts, &pool, MEMORY, vec![clone])?;
    clones.wait_ready(BOOT)?;
    let clone = clones.node("clone")?;

    session.check("running clones: the clone notices that it is one", || {
        clone.wait_console("this VM was resumed from a snapshot").map(drop)
    });
    session.check("running clones: both are members, and differ only in which run it is", || {
        let [one, other] = members(original)?;
        ensure!(one["system"] == other["system"] && one["boot"] != other["boot"], "{one} {other}");
        let boots = [original, clone].map(|node| run(node, "cat /proc/sys/kernel/random/boot_id"));
        let [one, other] = boots;
        ensure!(one?.stdout == other?.stdout, "the clone has booted");
        Ok(())
    });
    session.check("running clones: the clone of a command publishes nothing", || {
        let said = String::from_utf8_lossy(&run(clone, GO_ON)?.stdout).into_owned();
        ensure!(said.contains("this VM was resumed from a snapshot"), "{said}");
        let listing = String::from_utf8_lossy(&pool.famfs(["ls"])?).into_owned();
        ensure!(!listing.contains("large"), "{listing}");
        Ok(())
    });
    session.check("running clones: the original keeps the lease, and the clone is refused", || {
        wait_lease(original, "ours")?;
        wait_lease(clone, "alive")?;
        let said = refused(clone, "famfs mkdir /mnt/famfs/second", 1)?;
        ensure!(said.contains("another master is at work"), "{said}");
        Ok(())
    });
    session.check("running clones: the original goes on, and the clone sees it", || {
        run(original, &format!("{GO_ON}; famfs verify --seed 3 --file /mnt/famfs/large"))?;
        run(original, "famfs mkdir /mnt/famfs/first && famfs publish --wait-all /mnt/famfs")?;
        run(clone, "test -d /mnt/famfs/first && famfs verify --seed 3 --file /mnt/famfs/large")?;
        Ok(())
    });
    session.check("running clones: the original shuts down in order", || {
        originals.remove("original")?.end()
    });
    session.check("running clones: then the clone is the master, and the only member", || {
        wait_lease(clone, "ours")?;
        members::<1>(clone)?;
        run(clone, "famfs mkdir /mnt/famfs/second && famfs fsck /mnt/famfs").map(drop)
    });
    session.check("running clones: the clone shuts down in order", || clones.end());
    session
        .check("running clones: the host finds the pool clean", || pool.famfs(["fsck"]).map(drop));
    Ok(())
}

/// Saves a running VM, which goes on.
fn save(node: &Node, state: &Path) -> Result<()> {
    let mut qmp = node.vm.qmp(LIMIT)?;
    let on = json!([{ "capability": "x-ignore-shared", "state": true }]);
    // As fast as the file can be written.
    let fast = json!({ "max-bandwidth": 1u64 << 40 });
    for (command, arguments) in [
        ("migrate-set-capabilities", json!({ "capabilities": on })),
        ("migrate-set-parameters", fast),
        ("migrate", json!({ "uri": format!("file:{}", state.display()) })),
    ] {
        qmp.execute(command, arguments, LIMIT)?;
    }
    let end = Instant::now() + LIMIT;
    loop {
        let found = qmp.execute("query-migrate", json!({}), LIMIT)?;
        match found["status"].as_str() {
            Some("completed") => break,
            Some("failed" | "cancelled") => bail!("{found}"),
            _ => ensure!(Instant::now() < end, "not within {LIMIT:?}: {found}"),
        }
        thread::sleep(PAUSE);
    }
    qmp.execute("cont", json!({}), LIMIT)?;
    Ok(())
}

/// Waits until a VM says this of the lease.
fn wait_lease(node: &Node, state: &str) -> Result<()> {
    let end = Instant::now() + LIMIT;
    loop {
        let role = json(node, "famfs role --json /mnt/famfs")?;
        if role["lease"]["state"] == state {
            return Ok(());
        }
        ensure!(Instant::now() < end, "not {state:?} within {LIMIT:?}: {role}");
        thread::sleep(PAUSE);
    }
}

/// Waits until there are so many members, all of them alive.
fn members<const COUNT: usize>(node: &Node) -> Result<[Value; COUNT]> {
    let end = Instant::now() + LIMIT;
    loop {
        let report = json(node, "famfs members --json /mnt/famfs")?;
        let found = report["members"].as_array().cloned().unwrap_or_default();
        let all_live = found.iter().all(|member| member["state"] == "alive");
        if let (true, Ok(found)) = (all_live, found.try_into()) {
            return Ok(found);
        }
        ensure!(Instant::now() < end, "not {COUNT} members within {LIMIT:?}: {report}");
        thread::sleep(PAUSE);
    }
}
