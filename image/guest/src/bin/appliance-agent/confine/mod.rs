// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is given up before a pool is looked at: whoever makes a file system of it reads what other
//! machines have written.
//!
//! There remain the few capabilities that this takes, with no way to more, and a list of system
//! calls ([`calls`]), in which mounts that others would see are not. Other calls are answered with
//! EPERM.

mod calls;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

/// To bind drivers (files of root in /sys), to mount, and to make files with their owners and
/// modes, set-user-ID bits too.
const KEPT: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID);

/// Of no use to whoever is root in a machine for one pool, whose commands the host sends: mandatory
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

/// For the program that serves the host, and all that it runs: what nobody uses there is given up.
pub fn serve() -> Result<()> {
    keep(CapabilitySet::all().difference(UNUSED)).context("cannot give up capabilities")
}

/// For the calling thread, which must be the only one of its process. There is no way back.
pub fn enter() -> Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).context("cannot switch core files off")?;
    keep(KEPT).context("cannot give up capabilities")?;
    set_no_new_privs(true).context("cannot refuse new privileges")?;
    calls::restrict().context("cannot restrict system calls")
}

/// Gives up all other capabilities: of the calling thread, and of what it will execute.
fn keep(kept: CapabilitySet) -> rustix::io::Result<()> {
    for capability in CapabilitySet::all().difference(kept).iter() {
        match remove_capability_from_bounding_set(capability) {
            // This kernel does not have it.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    // Those that this kernel does not have cannot be set.
    let kept = kept.intersection(capabilities(None)?.permitted);
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)
}
