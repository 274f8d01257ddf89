// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The famfs tools in VMs: a reader that follows the master, many files, spread files, and a
//! master that is killed in the middle of a copy.

#[path = "pool/kill.rs"]
mod kill;
#[path = "pool/latency.rs"]
mod latency;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use vhost_famfs::launch::{Command, Output};
use vm_tests::{Artifacts, BOOT, Cluster, Member, Node, Pool, Session, View};

const POOL: u64 = 3 << 30;
const MEMORY: u64 = 768 << 20;
/// Bytes of host memory that the files take; the pool's other bytes stay holes.
const CONTENT: u64 = 512 << 20;
/// A command in a guest, under emulation on a busy host.
const LIMIT: Duration = Duration::from_secs(300);

fn main() -> Result<ExitCode> {
    let artifacts = Artifacts::from_env()?;
    let mut session = Session::from_args();
    session.scenario("a reader follows the master", |s| follow(s, &artifacts));
    session.scenario("a killed master", |s| kill::scenario(s, &artifacts));
    Ok(session.finish())
}

/// A master that makes files, and a reader that only watches.
fn follow(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let pool = Pool::create(artifacts, POOL, CONTENT, View::Devdax)?;
    pool.mkfs(&[])?;
    let members = vec![Member::new("master", true), Member::new("reader", false)];
    let cluster = Cluster::start(artifacts, &pool, MEMORY, members)?;
    cluster.wait_ready(BOOT)?;
    let (master, reader) = (cluster.node("master")?, cluster.node("reader")?);
    for node in [master, reader] {
        wait_for(node, "systemctl is-active --quiet famfs-watch")?;
    }
    session
        .check("a new file is visible in the other VM", || latency::check(&pool, master, reader));
    session.check("a watch that waits takes little of the processor", || latency::idle(reader));
    session.check("all shut down in order", || cluster.end());
    Ok(())
}

/// Runs a shell script that must succeed.
fn shell(node: &Node, script: &str) -> Result<Output> {
    node.run(&Command::shell(script), LIMIT)
}

/// Waits until a shell command succeeds.
fn wait_for(node: &Node, command: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        if node.vm.exec(&Command::shell(command), LIMIT)?.status.success() {
            return Ok(());
        }
        if start.elapsed() > LIMIT {
            bail!("VM {}: not within {} s: {command}", node.member.name, LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
