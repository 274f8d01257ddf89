// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The back-end with a real QEMU: the window's size and data, everything that restarts the device,
//! who may write to it, a cluster started by an emitted script, emitted units, and four VMs that
//! all write.

#[path = "device/emitted.rs"]
mod emitted;
#[path = "device/poke.rs"]
mod poke;
#[path = "device/readonly.rs"]
mod readonly;
#[path = "device/restart.rs"]
mod restart;
#[path = "device/units.rs"]
mod units;
#[path = "device/writers.rs"]
mod writers;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use vhost_famfs::vm::{Accelerator, Command};
use vm_tests::{Artifacts, BOOT, Cluster, Member, Node, Pool, Session, View};

/// Not a power of two: the device reports two regions whose sum is one.
const POOL: u64 = 34 << 20;
const MEMORY: u64 = 512 << 20;
const SHORT: Duration = Duration::from_secs(180);

const PAGE: u64 = 4096;

/// Where the guest writes, where the host writes, and where the guest stores bypassing its kernel.
const GUEST_OFFSET: u64 = 16 << 20;
const HOST_OFFSET: u64 = 24 << 20;
const POKE_OFFSET: u64 = 30 << 20;

fn main() -> Result<ExitCode> {
    let artifacts = Artifacts::from_env()?;
    let mut session = Session::from_args()?;
    session.scenario("accelerators", |s| {
        s.check("a guest of four instructions runs, and one that cannot is told", || {
            Accelerator::Tcg.try_with(&artifacts.qemu)?;
            let error = Accelerator::Tcg.try_with("/bin/false".as_ref());
            ensure!(error.is_err(), "a program that is no QEMU ran a guest");
            Ok(())
        });
        Ok(())
    });
    session.scenario("one window", |s| one_window(s, &artifacts));
    session.scenario("a read-only VM", |s| readonly::scenario(s, &artifacts));
    session.scenario("an emitted script", |s| emitted::scenario(s, &artifacts));
    session.scenario("emitted units", |s| units::scenario(s, &artifacts));
    session.scenario("four writers", |s| writers::scenario(s, &artifacts));
    Ok(session.finish())
}

fn one_window(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let pool = Pool::create(artifacts, POOL, POOL, View::Raw)?;
    let host = File::options().read(true).write(true).open(pool.path())?;
    restart::fill(&host, POOL)?;
    let scratch = tempfile::tempdir().context("no temporary directory")?;
    let tools = poke::disk(artifacts, scratch.path())?;
    let members = ["survivor", "orphan"]
        .map(|name| Member::new(name, false).without_attach().with_disk(tools.clone()));
    let mut cluster = Cluster::start(artifacts, &pool, MEMORY, members.into())?;
    cluster.wait_ready(BOOT)?;
    cluster.in_all(restart::probe)?;
    let (survivor, orphan) = (cluster.node("survivor")?, cluster.node("orphan")?);

    session.check("the device has exactly the pool's size", || {
        for node in cluster.nodes() {
            let sectors = text(node, "cat /sys/block/pmem0/size")?;
            ensure!(sectors == (POOL / 512).to_string(), "{sectors} sectors");
        }
        Ok(())
    });
    session.check("what a guest writes is in the pool and in the other guest", || {
        write(survivor, GUEST_OFFSET, "guest to all")?;
        ensure!(read_host(&host, GUEST_OFFSET)? == "guest to all", "the host reads other data");
        let seen = read(orphan, GUEST_OFFSET)?;
        ensure!(seen == "guest to all", "the other guest reads {seen:?}");
        Ok(())
    });
    session.check("what the host writes is in the guests", || {
        let mut block = b"host to all".to_vec();
        block.resize(4096, 0);
        host.write_all_at(&block, HOST_OFFSET)?;
        for node in cluster.nodes() {
            let seen = read(node, HOST_OFFSET)?;
            ensure!(seen == "host to all", "{} reads {seen:?}", node.member.name);
        }
        Ok(())
    });
    session.check("a flush succeeds once the window is mapped", || {
        text(survivor, "sync /dev/pmem0").map(|_| ())
    });
    restart::checks(session, artifacts, &host, survivor);
    session.check("root can store through /dev/mem where the window is writable", || {
        poke::memory(survivor, POKE_OFFSET, PAGE)?;
        let mut word = [0; 8];
        host.read_exact_at(&mut word, POKE_OFFSET)?;
        ensure!(u64::from_le_bytes(word) == poke::WORD, "the host reads {word:x?}");
        Ok(())
    });
    session.check("a VM whose back-end was killed keeps its memory", || {
        let backend = orphan.backend.as_ref().context("no back-end")?;
        let pid = Pid::from_raw(i32::try_from(backend.pid())?).context("no process id")?;
        kill_process(pid, Signal::KILL)?;
        write(survivor, GUEST_OFFSET, "after the kill")?;
        let seen = read(orphan, GUEST_OFFSET)?;
        ensure!(seen == "after the kill", "the orphan reads {seen:?}");
        Ok(())
    });
    let orphan = cluster.remove("orphan")?;
    // Its guest cannot shut down in order: on the way, a sync waits for a flush that nobody answers
    // any more.
    session.check("that VM can be ended by its control socket", || {
        orphan.vm.qmp(SHORT)?.execute("quit", json!({}), SHORT)?;
        let status = orphan.vm.wait_exit(SHORT).context("QEMU does not end")?;
        ensure!(status.success(), "QEMU: {status}");
        Ok(())
    });
    let survivor = cluster.remove("survivor")?;
    let socket = survivor.backend.as_ref().context("no back-end")?.socket().to_owned();
    session.check("a back-end ends with its VM and leaves no socket", || {
        survivor.end()?;
        ensure!(!socket.exists(), "{} is still there", socket.display());
        Ok(())
    });
    Ok(())
}

/// Runs a script in the guest and returns what it prints.
fn text(node: &Node, script: &str) -> Result<String> {
    let output = node.run(&Command::shell(script), SHORT)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Writes a text at an offset of the guest's device, bypassing its page cache.
fn write(node: &Node, offset: u64, words: &str) -> Result<()> {
    let mut block = words.as_bytes().to_vec();
    block.resize(4096, 0);
    let dd = format!(
        "dd of=/dev/pmem0 bs=4096 seek={} oflag=direct iflag=fullblock conv=notrunc status=none",
        offset / 4096
    );
    node.run(&Command::shell(&dd).stdin(block), SHORT).map(|_| ())
}

/// Reads a text at an offset of the guest's device, bypassing its page cache.
fn read(node: &Node, offset: u64) -> Result<String> {
    let dd =
        format!("dd if=/dev/pmem0 bs=4096 skip={} count=1 iflag=direct status=none", offset / 4096);
    let output = node.run(&Command::shell(&dd), SHORT)?;
    Ok(until_nul(&output.stdout))
}

/// Reads a text at an offset of the pool.
fn read_host(pool: &File, offset: u64) -> Result<String> {
    let mut block = [0; 4096];
    pool.read_exact_at(&mut block, offset)?;
    Ok(until_nul(&block))
}

fn until_nul(block: &[u8]) -> String {
    let end = block.iter().position(|byte| *byte == 0).unwrap_or(block.len());
    String::from_utf8_lossy(&block[..end]).into_owned()
}
