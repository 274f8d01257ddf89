// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Everything that starts the device again. Right after each restart, the checksum of the window,
//! computed by the guest, must equal that of the pool, computed by the host.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};
use vhost_famfs::vm::Command;
use vm_tests::{Artifacts, BOOT, Node, Session};

use super::{SHORT, text};

/// How long an agent that is still running takes to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// Random bytes in the whole pool: an unmapped window reads as zeros.
pub fn fill(host: &File, size: u64) -> Result<()> {
    let mut random = File::open("/dev/urandom").context("cannot open /dev/urandom")?.take(size);
    let mut block = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < size {
        random.read_exact(&mut block)?;
        host.write_all_at(&block, offset)?;
        offset += block.len() as u64;
    }
    Ok(())
}

/// Restarts the device of `node` in every possible way.
pub fn checks(session: &mut Session, artifacts: &Artifacts, host: &File, node: &Node) {
    let (cycles, boots) = if artifacts.all { (100, 100) } else { (4, 1) };
    session.check(&format!("the window is right after unbind and bind, {cycles} times"), || {
        repeat(cycles, host, node, |node| text(node, REBIND).map(drop))
    });
    let mut qmp = node.vm.qmp(SHORT);
    let mut control = |command: &str, arguments| match &mut qmp {
        Ok(qmp) => qmp.execute(command, arguments, SHORT).map(drop).context("QMP"),
        Err(error) => bail!("no control socket: {error}"),
    };
    session.check(&format!("the window is right after stop and cont, {cycles} times"), || {
        repeat(cycles, host, node, |_| {
            control("stop", json!({}))?;
            control("cont", json!({}))
        })
    });
    session.check(
        &format!("the window is right after a reset of the machine, {boots} times"),
        || {
            // Started with -no-reboot, unless someone changes that.
            control("set-action", json!({ "reboot": "reset" }))?;
            repeat(boots, host, node, |node| boot(node, || control("system_reset", json!({}))))
        },
    );
    session.check(
        &format!("the window is right after a reboot of the guest, {boots} times"),
        || {
            repeat(boots, host, node, |node| {
                boot(node, || {
                    // The restart also removes the answer. In its own session, the command
                    // continues after nobody waits for it.
                    let _ = node.vm.exec(&Command::new(REBOOT), ANSWER);
                    Ok(())
                })
            })
        },
    );
    session.check("a guest that powers off ends its VM again", || {
        control("set-action", json!({ "reboot": "shutdown" }))
    });
}

/// Reboots the guest at once.
const REBOOT: [&str; 6] = ["setsid", "--fork", "systemctl", "--force", "--force", "reboot"];

/// Unbinds the virtio driver from the device and binds it again.
const REBIND: &str = "cd /sys/bus/virtio/drivers/virtio_pmem
    device=$(basename virtio*)
    echo $device > unbind
    echo $device > bind
    for try in {1..1200}; do [[ -b /dev/pmem0 ]] && exit 0; sleep 0.1; done
    echo 'no /dev/pmem0 after 120 s' >&2; exit 1";

/// Repeats an action, and compares the window each time.
fn repeat(
    times: u32,
    host: &File,
    node: &Node,
    mut restart: impl FnMut(&Node) -> Result<()>,
) -> Result<()> {
    for cycle in 1..=times {
        restart(node).with_context(|| format!("cycle {cycle}"))?;
        same(host, node).with_context(|| format!("cycle {cycle}"))?;
    }
    Ok(())
}

/// Compares what the guest reads through the window with what the host reads from the pool.
pub fn same(host: &File, node: &Node) -> Result<()> {
    let seen = text(node, "dd if=/dev/pmem0 bs=1M iflag=direct status=none | sha256sum")?;
    let seen = seen.split_ascii_whitespace().next().unwrap_or_default();
    let expected = checksum(host)?;
    ensure!(seen == expected, "the guest reads {seen}, the pool has {expected}");
    Ok(())
}

/// The checksum of a whole pool.
pub fn checksum(host: &File) -> Result<String> {
    let mut sum = Sha256::new();
    let size = host.metadata()?.len();
    let mut block = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < size {
        host.read_exact_at(&mut block, offset)?;
        sum.update(&block);
        offset += block.len() as u64;
    }
    Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Loads the driver of the guest's device, and waits for the device: the guest is up before
/// virtio-pmem is.
pub fn probe(node: &Node) -> Result<()> {
    text(node, "modprobe nd_pmem")?;
    node.wait_for("[[ -b /dev/pmem0 ]]")
}

/// Reboots the guest and waits until it has its device.
fn boot(node: &Node, mut restart: impl FnMut() -> Result<()>) -> Result<()> {
    let before = node.vm.wait_up(SHORT)?.boot_id;
    restart()?;
    let begin = Instant::now();
    loop {
        // What remains of the previous agent does not answer, which ends its session.
        let _ = node.vm.exec(&Command::new(["true"]), ANSWER);
        if node.vm.wait_up(BOOT)?.boot_id != before {
            return probe(node);
        }
        ensure!(begin.elapsed() < BOOT, "the guest has not booted again after {BOOT:?}");
    }
}
