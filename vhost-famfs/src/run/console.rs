// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `console`.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};

use super::terminal::{End, attach};
use vhost_famfs::args::ConsoleConfig;
use vhost_famfs::bounded_log::tail;
use vhost_famfs::cluster::host::runtime_dir;
use vhost_famfs::cluster::{find, running_vm, state_of, vm_of};
use vhost_famfs::vm::VmPaths;

/// How much of the log to show first: about one screen.
const SHOWN: u64 = 2048;

pub(super) fn run(config: ConsoleConfig) -> Result<()> {
    let directory = find(&runtime_dir()?, config.cluster.as_deref())?;
    let state = state_of(&directory)?;
    let vm = vm_of(&state, &config.vm)?;
    let paths = directory.vm(&vm.name);
    let terminal = io::stdin().is_terminal();
    if terminal {
        eprintln!("Console of {}; press Ctrl-] to leave.", vm.name);
    }
    // Even if the VM has ended, its log is there.
    show_end(&paths).context("cannot show the console's log")?;
    running_vm(&state, &directory, &vm.name)?;
    let end = attach(&paths.console).with_context(|| {
        format!(
            "VM {}: cannot attach to its console; see `vhost-famfs ps` for whether it runs, and \
             `vhost-famfs logs` for a console that is only a file, as with cloud-hypervisor",
            vm.name
        )
    })?;
    if terminal {
        match end {
            End::Vm => eprintln!("\nThe VM has ended."),
            End::User => eprintln!("\nLeft the console; the VM keeps running."),
        }
    }
    Ok(())
}

fn show_end(paths: &VmPaths) -> io::Result<()> {
    // If the log cannot be read, the console itself may still work.
    let end = tail(&paths.console_log, SHOWN).unwrap_or_default();
    io::stdout().write_all(&end)?;
    io::stdout().flush()
}
