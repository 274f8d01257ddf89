// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The contents of the appliance image, and how it boots.

mod image {
    pub mod agent;
    pub mod batch;
    pub mod confinement;
    pub mod efi;
    pub mod faults;
    pub mod files;
    pub mod memory;
    pub mod mistakes;
    pub mod units;
    pub mod verity;
    pub mod vsock;
    pub mod vsock_peers;
}

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use protocol::credentials::VSOCK;
use vhost_famfs::vm::{Attach, Command};
use vm_tests::{Artifacts, BOOT, Cluster, Member, Pool, Session, View};

const POOL: u64 = 64 << 20;
const MEMORY: u64 = 512 << 20;
const SHORT: Duration = Duration::from_secs(180);

/// Kernel modules that docs/using/appliance.md lists as left out, because they would claim the
/// pool's device.
const ABSENT: [&str; 3] = ["device_dax", "kmem", "dax_hmem"];

/// All the kernel's tables of sockets that are reachable from a network (proc_net(5)).
const NETWORK: [&str; 10] =
    ["tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "packet"];

fn main() -> Result<ExitCode> {
    let artifacts = Artifacts::from_env()?;
    let mut session = Session::from_args()?;
    session.scenario("files", |s| image::files::files(s, &artifacts));
    session.scenario("boot without a pool", |s| boot(s, &artifacts));
    session.scenario("damaged pools", |s| damaged_pools(s, &artifacts));
    session.scenario("root in memory", |s| image::memory::shared_root(s, &artifacts));
    session.scenario("batch", |s| image::batch::diskless(s, &artifacts));
    session.scenario("verity", |s| image::verity::tampered(s, &artifacts));
    if artifacts.all {
        session.scenario("efi", |s| image::efi::uki(s, &artifacts));
        session.scenario("vsock", |s| image::vsock::notifies(s, &artifacts));
    }
    Ok(session.finish())
}

/// The kernel's names for the modules whose files are listed.
fn modules(paths: &str) -> BTreeSet<String> {
    let names = paths.lines().filter_map(|path| path.rsplit('/').next()?.split(".ko").next());
    names.map(|name| name.replace('-', "_")).collect()
}

fn boot(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let pool = Pool::create(artifacts, POOL, POOL, View::Devdax)?;
    let scratch = tempfile::tempdir()?;
    let member = Member::new("plain", false).with_transport(None).with_credential(VSOCK, "1");
    let member = member.with_disk(image::vsock_peers::disk(artifacts, scratch.path())?);
    let cluster = Cluster::start(artifacts, &pool, MEMORY, vec![member])?;
    let ready = cluster.wait_ready(BOOT)?;
    let node = cluster.node("plain")?;
    let says = |command: &[&str]| -> Result<String> {
        let output = node.run(&Command::new(command.iter().copied()), SHORT)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    session.check("the guest says that it has no pool", || {
        ensure!(ready[0].attach == Attach::Off, "{:?}", ready[0].attach);
        Ok(())
    });
    session.check("the self-check finds nothing", || {
        let problems = node.vm.self_check(SHORT)?;
        ensure!(problems.is_empty(), "{problems:?}");
        Ok(())
    });
    session.check("the root is read-only", || {
        let kind = says(&["findmnt", "--noheadings", "--output", "FSTYPE", "/"])?;
        let options = says(&["findmnt", "--noheadings", "--output", "OPTIONS", "/"])?;
        ensure!(kind == "erofs" && options.split(',').any(|o| o == "ro"), "{kind} {options}");
        let touched = node.vm.exec(&Command::new(["touch", "/usr/bin/x"]), SHORT)?;
        ensure!(!touched.status.success(), "a file was made in /usr/bin");
        Ok(())
    });
    session.check("the host name is the VM's", || {
        let name = says(&["uname", "-n"])?;
        ensure!(name == "plain", "{name}");
        Ok(())
    });
    session.check("no module takes dax devices from fsdev_dax", || {
        let found = says(&["find", "/usr/lib/modules", "-name", "*.ko*"])?;
        let modules = modules(&found);
        let absent = ABSENT.iter().filter(|name| modules.contains(**name)).collect::<Vec<_>>();
        ensure!(absent.is_empty(), "{absent:?} are in the image");
        // Only those that exist, because an empty list would prove nothing.
        let present = ["famfs", "fsdev_dax", "dax_pmem", "nd_pmem"];
        ensure!(present.iter().all(|name| modules.contains(*name)), "only {modules:?}");
        Ok(())
    });
    session.check("nothing listens on the network", || {
        for table in NETWORK {
            let table = &format!("/proc/net/{table}");
            let exists = node.vm.exec(&Command::new(["test", "-e", table]), SHORT)?;
            if exists.status.success() {
                let sockets = says(&["cat", table])?;
                ensure!(sockets.lines().count() <= 1, "{table}:\n{sockets}");
            }
        }
        Ok(())
    });
    session.check("a command's streams and exit status arrive", || {
        let script = "cat; echo to-stderr >&2; exit 7";
        let output = node.vm.exec(&Command::shell(script).stdin("to-stdin"), SHORT)?;
        ensure!(output.stdout == b"to-stdin", "{output:?}");
        ensure!(output.stderr == b"to-stderr\n", "{output:?}");
        ensure!(output.status == vhost_famfs::vm::Status::Code(7), "{output:?}");
        Ok(())
    });
    image::confinement::locked_in(session, node);
    image::agent::comes_back(session, node);
    session.check("programs of the guest cannot use its agent over vsock", || {
        image::vsock_peers::refused(node)
    });
    image::mistakes::told(session, node);
    session.check("shuts down in order", || cluster.end());
    Ok(())
}

/// A pool without a famfs: the VM must report that instead of waiting for ever.
fn damaged_pools(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let pool = Pool::create(artifacts, POOL, POOL, View::Devdax)?;
    let cluster = Cluster::start(artifacts, &pool, MEMORY, vec![Member::new("bare", true)])?;
    session.check("a pool without a file system is reported with the way out", || {
        match cluster.wait_ready(BOOT) {
            Ok(ready) => anyhow::bail!("the VM says: {:?}", ready[0].attach),
            Err(error) => {
                let text = format!("{error:#}");
                ensure!(text.contains("not mounted") && text.contains("not formatted"), "{text}");
                // It must not suggest creating a file system: that would be wrong if the window is
                // not mapped yet.
                ensure!(text.contains("pool inspect"), "{text}");
                Ok(())
            }
        }
    });
    session.check("that VM shuts down in order", || cluster.end());
    Ok(())
}
