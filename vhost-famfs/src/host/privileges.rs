// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Gives up privileges for good, once a process has opened what it needs.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// The failed action, and the kernel's answer.
pub type Failure = (&'static str, Errno);

/// Number of capabilities in a kernel's capability set.
const MOST: u32 = 64;

/// Gives up every capability, including those that it could regain by executing a program, new
/// privileges, and core dumps, which would contain guests' memory.
///
/// # Errors
/// What could not be given up.
pub fn drop_all() -> Result<(), Failure> {
    keep_only(CapabilitySet::empty())
}

/// Like [`drop_all`], but the calling thread, and threads that it starts, keep some capabilities.
///
/// # Errors
/// What could not be given up.
pub fn keep_only(kept: CapabilitySet) -> Result<(), Failure> {
    keep(kept, CapabilitySet::empty())
}

/// Like [`keep_only`], but programs that the thread starts as root also have what is kept.
///
/// # Errors
/// What could not be given up, or kept.
pub fn keep_for_programs(kept: CapabilitySet) -> Result<(), Failure> {
    keep(kept, kept)
}

fn keep(kept: CapabilitySet, inherited: CapabilitySet) -> Result<(), Failure> {
    limit(Resource::Core, 0).map_err(|errno| ("disable core dumps", errno))?;
    rustix::thread::set_no_new_privs(true).map_err(|errno| ("refuse new privileges", errno))?;
    let now =
        rustix::thread::capabilities(None).map_err(|errno| ("read its capabilities", errno))?;
    let inherited = inherited & now.permitted;
    // While the bounding set has them: nothing can be added to what is inherited afterwards.
    let sets = CapabilitySets { inheritable: inherited, ..now };
    rustix::thread::set_capabilities(None, sets)
        .map_err(|errno| ("keep capabilities for programs", errno))?;
    // A process that may not empty the bounding set has no capability that it could regain through
    // it.
    if now.effective.contains(CapabilitySet::SETPCAP) {
        empty_bounding_set().map_err(|errno| ("empty the capability bounding set", errno))?;
    }
    let kept = kept & now.permitted;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: inherited };
    rustix::thread::set_capabilities(None, sets).map_err(|errno| ("drop the capabilities", errno))
}

fn empty_bounding_set() -> rustix::io::Result<()> {
    for number in 0..MOST {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // The kernel has no more capabilities.
            Err(Errno::INVAL) => break,
            result => result?,
        }
    }
    Ok(())
}

/// Lowers a limit for good; a lower limit is kept.
///
/// # Errors
/// The kernel refuses.
pub fn limit(resource: Resource, value: u64) -> rustix::io::Result<()> {
    let now = getrlimit(resource);
    let at_most = |old: Option<u64>| Some(old.map_or(value, |old| old.min(value)));
    setrlimit(resource, Rlimit { current: at_most(now.current), maximum: at_most(now.maximum) })
}
