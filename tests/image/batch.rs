// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest that is started for one command, and credentials that describe its pool.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::json;
use vhost_famfs::vm::{Command, Root, Size, Status};
use vm_tests::{Artifacts, BOOT, Cluster, Member, Node, Pool, Session, View};

const POOL: u64 = 64 << 20;
const MEMORY: u64 = 512 << 20;
const SHORT: Duration = Duration::from_secs(180);
/// When to press a power button again: a press is lost while the guest still loads the driver.
const AGAIN: Duration = Duration::from_secs(10);

/// Starts four VMs on one pool, three of them without a root.
pub fn diskless(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let pool = Pool::create(artifacts, POOL, POOL, View::Devdax)?;
    pool.mkfs(&[])?;
    let other = Pool::create(artifacts, POOL, POOL, View::Devdax)?;
    other.mkfs(&[])?;
    let initrd = |name, master| Member::new(name, master).with_root(Root::Initrd);
    let members = vec![
        initrd("serving", true)
            .with_credential("famfs.mount-point", "/run/pool")
            .with_credential("famfs.view", "devdax"),
        // The tools exit with 2 for wrong usage, a status that nothing else here uses.
        initrd("batch", false).with_credential("famfs.run", "famfs --no-such-option"),
        // A second VM that claims to be master, but the pool determines who is.
        Member::new("pretender", false).with_credential("famfs.role", "master"),
        initrd("torn", false).with_pool_beside(&other),
    ];
    let cluster = Cluster::start(artifacts, &pool, MEMORY, members)?;
    let serving = cluster.node("serving")?;
    session.check("without systemd, the pool is mounted where the host says", || {
        serving.vm.wait_ready(BOOT)?;
        let output = serving.run(&Command::new(["famfs", "df", "/run/pool"]), SHORT)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(text.contains("log slots used"), "{text}");
        Ok(())
    });
    session.check("a second attach says that the pool is mounted, where, and what to do", || {
        let tried = serving.vm.exec(&Command::new(["appliance-agent", "attach"]), SHORT)?;
        let said = String::from_utf8_lossy(&tried.stderr).into_owned();
        ensure!(!tried.status.success(), "{tried:?}");
        ensure!(
            said.contains("is already mounted on /run/pool; to replay its log, use `famfs"),
            "{said}"
        );
        Ok(())
    });
    session.check("without systemd, a command can have a terminal", || {
        // Its errors are on standard output too: a terminal is one stream.
        let command = Command::new(["famfs", "--no-such-option"]);
        let command = command.tty(Size { rows: 24, columns: 80 });
        let output = serving.vm.exec(&command, SHORT)?;
        ensure!(output.status == Status::Code(2), "{output:?}");
        ensure!(output.stderr.is_empty() && !output.stdout.is_empty(), "{output:?}");
        Ok(())
    });
    session.check("without systemd, the self-check finds nothing", || {
        let problems = serving.vm.self_check(SHORT)?;
        ensure!(problems.is_empty(), "{problems:?}");
        Ok(())
    });
    let batch = cluster.node("batch")?;
    session.check("the command's exit status reaches the host, then the VM powers off", || {
        let status = batch.vm.wait_run(BOOT)?;
        ensure!(status == Status::Code(2), "{status}");
        let Some(status) = batch.vm.wait_exit(SHORT) else { bail!("still running") };
        ensure!(status.success(), "QEMU: {status}");
        Ok(())
    });
    session.check("a second master is refused, and says so", || {
        let text = refusal(cluster.node("pretender")?)?;
        ensure!(text.contains("this VM is client of the pool"), "{text}");
        cluster.node("pretender")?.wait_console("this VM is client of the pool").map(drop)
    });
    session.check("its self-check names the unit", || {
        let problems = cluster.node("pretender")?.vm.self_check(SHORT)?;
        ensure!(problems == ["unit failed: famfs-attach.service"], "{problems:?}");
        Ok(())
    });
    session.check("of two pools neither is mounted, whichever comes first", || {
        let torn = cluster.node("torn")?;
        refusal(torn)?;
        let text = torn.wait_console("set famfs.no-pool and choose")?;
        ensure!(text.contains("several devices hold a famfs: /dev/dax"), "{text}");
        Ok(())
    });
    session.check("the power button powers off, without systemd and with it", || {
        for node in [serving, cluster.node("pretender")?] {
            press_power_button(node)?;
        }
        Ok(())
    });
    session.check("the others shut down in order", || {
        let mut cluster = cluster;
        drop(cluster.remove("batch")?);
        cluster.end()
    });
    Ok(())
}

/// Why a guest does not mount its pool, with the end of its console.
fn refusal(node: &Node) -> Result<String> {
    match node.vm.wait_ready(BOOT) {
        Ok(ready) => bail!("the VM says: {:?}", ready.attach),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// What `virsh shutdown` and other VMMs' commands do to a machine.
fn press_power_button(node: &Node) -> Result<()> {
    let name = node.vm.name();
    let mut qmp = node.vm.qmp(SHORT)?;
    let begin = Instant::now();
    loop {
        let pressed = qmp.execute("system_powerdown", json!({}), SHORT);
        if let Some(status) = node.vm.wait_exit(AGAIN) {
            ensure!(status.success(), "VM {name}: {status}");
            return Ok(());
        }
        pressed?;
        ensure!(begin.elapsed() < SHORT, "VM {name} is still running");
    }
}
