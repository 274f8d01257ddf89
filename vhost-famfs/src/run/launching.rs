// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What all commands have in common that start VMs.

use anyhow::{Context, Result};
use rustix::fs::Mode;
use rustix::process::Resource;
use vhost_famfs::host::{privileges, sys};

/// The exit code after Ctrl-C, as in a shell: 128 plus the number of SIGINT.
pub(super) const INTERRUPTED: u8 = 130;

/// Prepares this program for starting VMs that outlive it.
pub(super) fn before_vms() -> Result<()> {
    // They must not hold descriptors of this program's parent.
    sys::keep_descriptors().context("cannot keep descriptors from reaching the VMs")?;
    // Files that QEMU creates are for the owner only; a core dump would contain the guest's memory.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    privileges::limit(Resource::Core, 0).context("cannot disable core dumps")
}
