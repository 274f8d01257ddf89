// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Gives up privileges before a pool is read: the program that creates a file system from it parses
//! what other machines have written.
//!
//! It keeps only the capabilities that this needs, with no way to gain others, and a list of system
//! calls ([`calls`]), which does not include mounts that others would see. All other calls fail
//! with EPERM.

mod calls;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

/// For binding drivers (files of root in /sys), for mounting, and for creating files with their
/// owners and modes, including set-user-ID bits.
const KEPT: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID);

/// Of no use to root on a machine that serves one pool and runs the host's commands: mandatory
/// access control, the audit system, process accounting, keeping the machine awake, restoring
/// processes.
const UNUSED: CapabilitySet = CapabilitySet::MAC_ADMIN
    .union(CapabilitySet::MAC_OVERRIDE)
    .union(CapabilitySet::AUDIT_CONTROL)
    .union(CapabilitySet::AUDIT_READ)
    .union(CapabilitySet::SYS_PACCT)
    .union(CapabilitySet::WAKE_ALARM)
    .union(CapabilitySet::BLOCK_SUSPEND)
    .union(CapabilitySet::CHECKPOINT_RESTORE);

/// For the program that serves the host and everything that it runs: drops what nobody uses there.
pub fn serve() -> Result<()> {
    keep(CapabilitySet::all().difference(UNUSED)).context("cannot give up capabilities")
}

/// Applies to the calling thread, which must be the only one of its process. Cannot be undone.
pub fn enter() -> Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).context("cannot switch core files off")?;
    keep(KEPT).context("cannot give up capabilities")?;
    set_no_new_privs(true).context("cannot refuse new privileges")?;
    calls::restrict().context("cannot restrict system calls")
}

/// Drops all other capabilities, for the calling thread and for programs that it executes.
fn keep(kept: CapabilitySet) -> rustix::io::Result<()> {
    for capability in CapabilitySet::all().difference(kept).iter() {
        match remove_capability_from_bounding_set(capability) {
            // This kernel does not have it.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    // Capabilities that this kernel does not have cannot be set.
    let kept = kept.intersection(capabilities(None)?.permitted);
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)
}
