// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhost-famfs up` compared with the same command lines, started by hand.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use vhost_famfs::cluster::host::Host;
use vhost_famfs::cluster::plan::ClusterPlan;
use vhost_famfs::cluster::spec::Spec;
use vhost_famfs::vm::{Backend, Lifetime, Vm};
use vm_tests::{Artifacts, BOOT, Pool, View, interrupt};

use super::Measurement;
use super::measurement::Better;
use super::sample::medians;
use crate::{image, paths};

/// Size of the pool, and number of VMs that share it.
const POOL: u64 = 512 << 20;
const VMS: u32 = 3;

/// Starts the same cluster in both ways, one after the other.
pub fn run() -> Result<Vec<Measurement>> {
    let artifacts = image::run()?.artifacts(&paths::target().join("vm/bench-up"))?;
    let pool = Pool::create(&artifacts, POOL, POOL, View::Devdax)?;
    pool.mkfs(&[])?;
    let (value, peer) = medians(|| up(&artifacts, &pool), || by_hand(&artifacts, &pool))?;
    Ok(vec![Measurement::new(
        "up.mounted",
        "vhost-famfs up of 3 VMs, to its end",
        "s",
        value,
        ("the same command lines by hand, to the last mount", peer),
        (Better::Lower, 1.1),
    )])
}

/// How long the command takes, in seconds.
fn up(artifacts: &Artifacts, pool: &Pool) -> Result<f64> {
    let runtime = tempfile::tempdir_in(&artifacts.runtime).context("no runtime directory")?;
    let program = |command: &str| {
        let mut program = Command::new(artifacts.programs.join("vhost-famfs"));
        program.arg(command).env("XDG_RUNTIME_DIR", runtime.path());
        program.env("VHOST_FAMFS_QEMU", &artifacts.qemu);
        program.env("VHOST_FAMFS_IMAGE", &artifacts.image);
        // Not in the terminal's process group: its Ctrl-C would be a second signal, or would end
        // `down`.
        program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        program.process_group(0);
        program
    };
    let mut up = program("up");
    up.args(["--vms", &VMS.to_string(), "--pool"]).arg(pool.path());
    let begun = Instant::now();
    let child = interrupt::spawn(&mut up)?;
    let started = child.wait_with_output().context("cannot wait for vhost-famfs")?;
    let seconds = begun.elapsed().as_secs_f64();
    // Also after a signal: what `up` starts outlives it.
    let ended = program("down").output().context("cannot run vhost-famfs")?;
    ensure!(started.status.success() && ended.status.success(), "{started:?} {ended:?}");
    Ok(seconds)
}

/// Seconds until all VMs have mounted the pool, with the command lines that `up` would use.
fn by_hand(artifacts: &Artifacts, pool: &Pool) -> Result<f64> {
    interrupt::check()?;
    let runtime = tempfile::tempdir_in(&artifacts.runtime).context("no runtime directory")?;
    let plan = plan(artifacts, pool, runtime.path())?;
    fs::create_dir_all(&plan.dir).context("cannot create the cluster's directory")?;
    let begun = Instant::now();
    let mut backends = Vec::new();
    for vm in &plan.vms {
        let config = vm.backend.clone().context("a VM without a back-end")?;
        backends.push(Backend::spawn(config, Lifetime::Tied)?);
    }
    let mut vms = Vec::new();
    for (vm, backend) in plan.vms.iter().zip(&mut backends) {
        backend.wait_listening()?;
        vms.push(Vm::spawn(vm.config.clone(), Lifetime::Tied)?);
    }
    thread::scope(|scope| {
        let wait = |vm: &Vm| -> Result<()> {
            vm.wait_started()?;
            vm.wait_ready(BOOT)?;
            Ok(())
        };
        let waits: Vec<_> = vms.iter().map(|vm| scope.spawn(move || wait(vm))).collect();
        for thread in waits {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    for vm in vms {
        vm.poweroff(BOOT)?;
    }
    Ok(seconds)
}

fn plan(artifacts: &Artifacts, pool: &Pool, runtime: &Path) -> Result<ClusterPlan> {
    let mut spec = Spec::of_shares("default", VMS, Vec::new());
    spec.pool.path = Some(pool.path().to_owned());
    let mut host = Host::look(Some(&artifacts.qemu), Some(&artifacts.image))?;
    host.runtime = PathBuf::from(runtime);
    host.program = artifacts.programs.join("vhost-famfs");
    Ok(ClusterPlan::new(&spec, &host)?)
}
