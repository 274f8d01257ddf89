// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is given up before a pool is looked at: whoever makes a file system of it reads what other machines have written.
//!
//! There remain the few capabilities that this takes, with no way to more, and a list of system calls ([`calls`]), in which
//! mounts that others would see are not. Other calls are answered with EPERM.

mod calls;

use anyhow::{Context, Result};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

/// To bind drivers (files of root in /sys), to mount, and to make files with their owners and modes, set-user-ID bits too.
const KEPT: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID);

/// For the calling thread, which must be the only one of its process. There is no way back.
pub fn enter() -> Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).context("cannot switch core files off")?;
    give_up_capabilities().context("cannot give up capabilities")?;
    set_no_new_privs(true).context("cannot refuse new privileges")?;
    calls::restrict().context("cannot restrict system calls")
}

fn give_up_capabilities() -> rustix::io::Result<()> {
    for capability in CapabilitySet::all().difference(KEPT).iter() {
        match remove_capability_from_bounding_set(capability) {
            // This kernel does not have it.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    let sets =
        CapabilitySets { effective: KEPT, permitted: KEPT, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)
}
