// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a process of ours gives up for good once it has opened what it needs.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// What was tried, and the kernel's answer.
pub type Failure = (&'static str, Errno);

/// Capabilities that a set of the kernel can hold.
const MOST: u32 = 64;

/// Gives up every capability, also those that a program that is run could get back, new privileges, and
/// core files, which would hold memory of guests.
///
/// # Errors
/// What cannot be given up.
pub fn drop_all() -> Result<(), Failure> {
    keep_only(CapabilitySet::empty())
}

/// The same, but the calling thread, and those that it starts, keep some capabilities.
///
/// # Errors
/// What cannot be given up.
pub fn keep_only(kept: CapabilitySet) -> Result<(), Failure> {
    limit(Resource::Core, 0).map_err(|errno| ("switch core files off", errno))?;
    rustix::thread::set_no_new_privs(true).map_err(|errno| ("refuse new privileges", errno))?;
    let now =
        rustix::thread::capabilities(None).map_err(|errno| ("look at its capabilities", errno))?;
    // Who may not empty the bounding set has no capability that could come back by it.
    if now.effective.contains(CapabilitySet::SETPCAP) {
        empty_bounding_set().map_err(|errno| ("empty the capability bounding set", errno))?;
    }
    let kept = kept & now.permitted;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: none };
    rustix::thread::set_capabilities(None, sets).map_err(|errno| ("drop the capabilities", errno))
}

fn empty_bounding_set() -> rustix::io::Result<()> {
    for number in 0..MOST {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // The kernel has no more of them.
            Err(Errno::INVAL) => break,
            result => result?,
        }
    }
    Ok(())
}

/// Lowers a limit for good; one that is lower already stays.
///
/// # Errors
/// The kernel refuses.
pub fn limit(resource: Resource, value: u64) -> rustix::io::Result<()> {
    let now = getrlimit(resource);
    let at_most = |old: Option<u64>| Some(old.map_or(value, |old| old.min(value)));
    setrlimit(resource, Rlimit { current: at_most(now.current), maximum: at_most(now.maximum) })
}
