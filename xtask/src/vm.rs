// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask vm`: runs one appliance VM with a pool, with its console on this terminal.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use vm_tests::{Cluster, Member, Pool, View};

use crate::args::VmArgs;
use crate::{image, paths};

/// The size of a pool that is created for this VM.
const POOL: u64 = 512 << 20;

/// Starts the VM and waits until it is powered off.
pub fn run(args: &VmArgs) -> Result<ExitCode> {
    if !io::stdin().is_terminal() {
        bail!("'vm' attaches to a console: run it on a terminal ('demo' and 'test' need none)");
    }
    let artifacts = image::run()?.artifacts(&paths::target().join("vm/interactive"))?;
    let pool = match &args.pool {
        Some(path) => Pool::existing(&artifacts, path)?,
        None => {
            let pool = Pool::create(&artifacts, POOL, 0, View::Devdax)?;
            pool.mkfs(&[])?;
            pool
        }
    };
    eprintln!("Pool: {}", pool.path().display());
    eprintln!(
        "The pool is mounted at /mnt/famfs in the VM. To power the VM off, type 'exit'; to \
               kill it, press Ctrl-A x."
    );
    let member = Member::new("vm", true).on_terminal();
    let cluster = Cluster::start(&artifacts, &pool, args.memory << 20, vec![member])?;
    let node = cluster.node("vm")?;
    let status = node.vm.wait_exit(Duration::MAX).context("QEMU does not end")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
