// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The memory of deleted files comes back while virtual machines run, and never while a program in
//! one of them has such a file open.

use std::fs::File;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vm_tests::{Artifacts, BOOT, Cluster, Member, Node, Pool, Session, View};

use super::shell;

const POOL: u64 = 256 << 20;
const MEMORY: u64 = 768 << 20;
const SIZE: u64 = 8 << 20;

/// A master and a reader; the reader holds what the host deletes.
pub fn scenario(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let pool = Pool::create(artifacts, POOL, POOL, View::Devdax)?;
    pool.mkfs(&[])?;
    let members = vec![Member::new("master", true), Member::new("reader", false)];
    let cluster = Cluster::start(artifacts, &pool, MEMORY, members)?;
    cluster.wait_ready(BOOT)?;
    let (master, reader) = (cluster.node("master")?, cluster.node("reader")?);
    cluster.in_all(Node::wait_watch)?;
    session.check("a deleted file that a VM holds keeps its memory, until that VM lets go", || {
        held(&pool, master, reader)
    });
    session.check("many deleted files come back at once", || many(&pool, master, reader));
    session.check("the master of a VM deletes, and the host gives the memory back", || {
        by_the_master(&pool, master, reader)
    });
    session.check("who has the pool and is no member is named", || no_member(&pool, reader));
    session.check("all shut down in order", || cluster.end());
    Ok(())
}

fn held(pool: &Pool, master: &Node, reader: &Node) -> Result<()> {
    create(pool, "held", 1, &[master, reader])?;
    let old = extents(pool, "held")?;
    shell(
        reader,
        "(exec </mnt/famfs/held; echo $BASHPID > /run/holder; exec sleep 100000) &>/dev/null &",
    )?;
    reader.wait_for("[[ $(readlink /proc/$(cat /run/holder)/fd/0) == */held ]]")?;
    let sum = || -> Result<Vec<u8>> {
        Ok(shell(reader, "cksum < /proc/$(cat /run/holder)/fd/0")?.stdout)
    };
    let before = sum()?;
    pool.famfs(["rm", "/held"])?;
    reader.wait_for("[[ ! -e /mnt/famfs/held ]]")?;
    let (code, report) = reclaim(pool, "1")?;
    let machine = machine(reader)?;
    let held = &report["held"];
    ensure!(
        code == Some(3)
            && report["left"] == SIZE
            && held.as_array().is_some_and(|held| held.len() == 1)
            && held[0]["machine"] == machine
            && held[0]["path"] == "held",
        "{report}"
    );
    ensure!(releasing(pool)? == SIZE);
    // What comes meanwhile gets other memory, and is deleted without being in the way.
    create(pool, "other", 2, &[master, reader])?;
    ensure!(extents(pool, "other")? != old, "memory that is in use was given away");
    ensure!(sum()? == before, "the bytes of a deleted file changed");
    shell(reader, "kill $(cat /run/holder)")?;
    let (code, report) = reclaim(pool, "100")?;
    ensure!(code == Some(0) && report["left"] == 0 && report["bytes"] == SIZE, "{report}");
    ensure!(releasing(pool)? == 0);
    create(pool, "again", 3, &[master, reader])?;
    ensure!(extents(pool, "again")? == old, "the memory was not used again");
    pool.famfs(["fsck"]).map(drop)
}

/// 3,000 files of a page, whose memory others get.
fn many(pool: &Pool, master: &Node, reader: &Node) -> Result<()> {
    let dir = tempfile::tempdir().context("no temporary directory")?;
    for round in 0..2_u8 {
        for n in 0..3000 {
            std::fs::write(dir.path().join(format!("{n}")), [round + 1; 4096])?;
        }
        let source = dir.path().to_str().context("a name that is not text")?;
        pool.famfs(["cp", "-r", "--atomic", source, "/many"])?;
        for node in [master, reader] {
            node.wait_for("[[ -e /mnt/famfs/many/2999 ]]")?;
            let sums = shell(node, "cd /mnt/famfs/many && cat * | tr -d '\\001\\002' | wc -c")?;
            ensure!(sums.stdout == b"0\n", "{sums:?}");
            let found = shell(node, "cd /mnt/famfs/many && cat * | cksum")?.stdout;
            let wanted = std::process::Command::new("sh")
                .args(["-c", "cat * | cksum"])
                .current_dir(dir.path())
                .output()?;
            ensure!(found == wanted.stdout, "round {round}: {:?}", node.member.name);
        }
        pool.famfs(["rm", "-r", "/many"])?;
        let (code, report) = reclaim(pool, "100")?;
        ensure!(code == Some(0) && releasing(pool)? == 0, "{report}");
    }
    Ok(())
}

fn by_the_master(pool: &Pool, master: &Node, reader: &Node) -> Result<()> {
    shell(master, "famfs creat -s 8m -S 5 /mnt/famfs/guest")?;
    reader.wait_for("test -e /mnt/famfs/guest")?;
    let old = extents(pool, "guest")?;
    shell(master, "famfs rm /mnt/famfs/guest")?;
    let (code, report) = reclaim(pool, "100")?;
    ensure!(code == Some(0), "{report}");
    shell(master, "famfs creat -s 8m -S 6 /mnt/famfs/guest")?;
    ensure!(extents(pool, "guest")? == old, "the master did not use the memory again");
    reader.wait_for("test -e /mnt/famfs/guest")?;
    shell(reader, "famfs verify -S 6 -f /mnt/famfs/guest").map(drop)
}

fn no_member(pool: &Pool, reader: &Node) -> Result<()> {
    // A watch that was killed has told enough; one that has ended has not.
    shell(reader, "systemctl stop famfs-watch")?;
    pool.famfs(["rm", "/other"])?;
    let (code, report) = reclaim(pool, "0")?;
    let reason = report["held"][0]["reason"].as_str().unwrap_or_default();
    ensure!(code == Some(3) && reason.contains("is no member"), "{report}");
    shell(reader, "systemctl start famfs-watch")?;
    let (code, report) = reclaim(pool, "100")?;
    ensure!(code == Some(0), "{report}");
    pool.famfs(["rm", "/again"])?;
    let file = File::open(pool.path())?;
    pool.famfs(["creat", "-s", "2m", "/last"])?;
    pool.famfs(["rm", "/last"])?;
    let (code, report) = reclaim(pool, "0")?;
    let reason = report["held"][0]["reason"].as_str().unwrap_or_default();
    let me = format!("process {}", std::process::id());
    ensure!(code == Some(3) && reason.contains(&me), "{report}");
    drop(file);
    let (code, report) = reclaim(pool, "100")?;
    ensure!(code == Some(0), "{report}");
    pool.famfs(["fsck"]).map(drop)
}

/// Makes a file on the host, and compares it in VMs with what it should be.
fn create(pool: &Pool, name: &str, seed: u32, nodes: &[&Node]) -> Result<()> {
    let (path, seed) = (format!("/{name}"), seed.to_string());
    pool.famfs(["creat", "-s", "8m", "-S", &seed, &path])?;
    for node in nodes {
        node.wait_for(&format!("test -e /mnt/famfs/{name}"))?;
        shell(node, &format!("famfs verify -S {seed} -f /mnt/famfs/{name}"))?;
    }
    Ok(())
}

fn reclaim(pool: &Pool, wait: &str) -> Result<(Option<i32>, Value)> {
    let output = pool.famfs_command(["reclaim", "--wait", wait, "--json"]).output()?;
    let report = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((output.status.code(), report))
}

/// Bytes that are being released.
fn releasing(pool: &Pool) -> Result<u64> {
    let df: Value = serde_json::from_slice(&pool.famfs(["df", "--json"])?)?;
    df["deleted"].as_u64().context("df without bytes")
}

/// Where a file is on the device.
fn extents(pool: &Pool, name: &str) -> Result<Value> {
    let map: Value =
        serde_json::from_slice(&pool.famfs(["getmap", "--json", &format!("/{name}")])?)?;
    let extents = map.pointer("/files/0/map/extents").or(map.pointer("/files/0/map"));
    Ok(extents.with_context(|| map.to_string())?.clone())
}

/// A VM's machine UUID.
fn machine(node: &Node) -> Result<Value> {
    let found = shell(node, "cat /sys/class/dmi/id/product_uuid")?;
    Ok(String::from_utf8_lossy(&found.stdout).trim().to_lowercase().into())
}
