// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A log never fills up with what is deleted, while virtual machines follow it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vm_tests::{Artifacts, BOOT, Cluster, Member, Node, Pool, Session, View};

use super::shell;
use super::storm::{self, Length};

const POOL: u64 = 256 << 20;
const MEMORY: u64 = 512 << 20;
/// Cycles of making, mapping and deleting.
const CYCLES: u64 = 30;
/// The storm of many files at once: in a short log, or with `--all` in one of 8 MiB.
const STORM: Length = Length { cycles: 2_560, time: Duration::from_secs(600) };
const LONG_STORM: Length = Length { cycles: 100_000, time: Duration::from_secs(600) };
const LONG_LOG: &str = "8m";
/// Small files that come and go with each file.
const FILES: u64 = 200;
/// After how many cycles a VM keeps a file open for the whole of the next one. What is removed
/// after it cannot be given back until then.
const HELD: u64 = 5;

/// Two VMs that map what the host makes and deletes, or three for longer.
pub fn scenario(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let pool = Pool::create(artifacts, POOL, POOL, View::Devdax)?;
    let long = artifacts.all;
    let log = if long { ["--loglen", LONG_LOG] } else { ["--entries", "1000"] };
    pool.mkfs(&log)?;
    let scratch = tempfile::tempdir().context("no temporary directory")?;
    let disk = storm::disk(artifacts, scratch.path())?;
    let names: &[&str] = if long { &["one", "two", "three"] } else { &["one", "two"] };
    let member = |name: &&str| Member::new(name, false).with_disk(disk.clone());
    let members = names.iter().map(member).collect();
    let cluster = Cluster::start(artifacts, &pool, MEMORY, members)?;
    cluster.wait_ready(BOOT)?;
    cluster.in_all(Node::wait_watch)?;
    let nodes = names.iter().map(|name| cluster.node(name)).collect::<Result<Vec<_>>>()?;
    if !long {
        session.check("a log is never full of what is deleted", || cycles(&pool, &nodes));
    }
    session
        .check("a storm of files never fills the log, and no VM sees bytes of another one", || {
            storm::rage(&pool, &nodes, if long { LONG_STORM } else { STORM })
        });
    session.check("a VM that was behind, and one that mounts now, show the same tree", || {
        pool.famfs(["creat", "-s", "1m", "-S", "9", "/last"])?;
        for node in &nodes {
            node.wait_for("[[ $(ls /mnt/famfs) == last ]]")?;
            shell(node, "famfs verify -S 9 -f /mnt/famfs/last")?;
            let log = shell(node, "journalctl -u famfs-watch")?;
            let log = String::from_utf8_lossy(&log.stdout).into_owned();
            ensure!(!log.contains("cannot") && !log.contains("rewritten"), "{log}");
        }
        pool.famfs(["publish", "--wait-all", "--members", &nodes.len().to_string()])?;
        pool.famfs(["fsck"]).map(drop)
    });
    session.check("all shut down in order", || cluster.end());
    Ok(())
}

fn cycles(pool: &Pool, nodes: &[&Node]) -> Result<()> {
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let source = dir.path().to_str().context("a name that is not text")?;
    let (mut moves, mut published, mut held) = (0, 0, None);
    for (n, node) in (1..=CYCLES).zip(nodes.iter().cycle()) {
        for file in 0..FILES {
            std::fs::write(dir.path().join(file.to_string()), format!("files of {n}\n"))?;
        }
        let (file, tree, seed) = (format!("/file{n}"), format!("/tree{n}"), n.to_string());
        pool.famfs(["creat", "-s", "256k", "-S", &seed, &file])?;
        pool.famfs(["cp", "-r", "--atomic", source, &tree])?;
        let tree_in_vm = format!("/mnt/famfs{tree}");
        node.wait_for(&format!("test -e {tree_in_vm}/{}", FILES - 1))?;
        shell(node, &format!("famfs verify -S {seed} -f /mnt/famfs{file}"))?;
        let words = shell(node, &format!("sort -u {tree_in_vm}/*"))?.stdout;
        ensure!(words == format!("files of {n}\n").as_bytes(), "{n}: {words:?}");
        if let Some((node, before)) = held.take() {
            ensure!(sum(node)? == before, "{n}: a file that is open has other bytes");
            shell(node, "kill $(cat /run/holder)")?;
        }
        if n % HELD == 0 {
            let hold = format!(
                "(exec </mnt/famfs{file}; echo $BASHPID > /run/holder; exec sleep 100000) \
                 &>/dev/null &"
            );
            shell(node, &hold)?;
            node.wait_for("[[ $(readlink /proc/$(cat /run/holder)/fd/0) == */file* ]]")?;
            held = Some((*node, sum(node)?));
        }
        pool.famfs(["rm", "-r", &file, &tree])?;
        let output = pool.famfs_command(["reclaim", "--wait", "5", "--json"]).output()?;
        let report: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let is_held = output.status.code() == Some(3) && held.is_some();
        ensure!(output.status.success() || is_held, "{n}: {report}");
        let now = entries(pool)?;
        moves += u64::from(now < published);
        published = now;
    }
    println!("# {CYCLES} cycles, entries moved {moves} times, {published} are in the log");
    ensure!(moves >= 3, "entries moved only {moves} times in {CYCLES} cycles");
    if let Some((node, before)) = held {
        ensure!(sum(node)? == before, "a file that is open has other bytes");
        shell(node, "kill $(cat /run/holder)")?;
    }
    Ok(())
}

/// The bytes of the file that is held.
fn sum(node: &Node) -> Result<Vec<u8>> {
    Ok(shell(node, "cksum < /proc/$(cat /run/holder)/fd/0")?.stdout)
}

/// Number of log entries.
pub fn entries(pool: &Pool) -> Result<u64> {
    let df: Value = serde_json::from_slice(&pool.famfs(["df", "--json"])?)?;
    df["log_slots_used"].as_u64().with_context(|| df.to_string())
}
