// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The operations that need `unsafe`: taking over descriptors that have no owner, closing
//! descriptors at exec, the memory policy of a mapping and of the heap, dropping the process's own
//! code from memory, the time stamp counter, the local time, and how a process ended.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::OnceLock;

use rustix::mm::{Advice, madvise};
use vm_memory::MmapRegion;

/// Takes ownership of the inherited descriptor `number`.
///
/// Call it once per number, before the process opens anything of its own: only then does the
/// descriptor belong to the parent. Standard input, output and error are refused.
pub fn inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    if (0..=2).contains(&number) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "0, 1 and 2 are standard input, output and error",
        ));
    }
    if std::fs::read_link(format!("/proc/self/fd/{number}")).is_err() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "this descriptor is not open; the parent process must pass it without close-on-exec",
        ));
    }
    // SAFETY: the lookup above found the descriptor open, and by this function's contract it
    // was open before the process opened anything, so nothing else in the process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes a descriptor that a library released without closing it.
///
/// Call it only for a number that `into_raw_fd` returned and that nothing uses any more.
pub fn close_abandoned(number: RawFd) {
    // SAFETY: by this function's contract `into_raw_fd` gave the ownership up and nobody took it.
    drop(unsafe { OwnedFd::from_raw_fd(number) });
}

/// Makes all threads allocate from one heap. By default, glibc gives each thread its own, which
/// costs memory and, when a VM connects, time; the threads of a back-end rarely allocate.
///
/// Call it before the process starts a thread. It may have no effect; that is not an error.
pub fn share_one_heap() {
    // SAFETY: mallopt(3) takes two numbers and is not called by another thread, by this function's
    // contract.
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// An address range.
type Range = (usize, usize);

/// Where the code of the program and its libraries is mapped.
static CODE: OnceLock<Vec<Range>> = OnceLock::new();

/// Records where this process has its code, for [`release_code`].
pub fn find_code() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    // It may have been recorded already; that is not an error.
    let _ = CODE.set(maps.lines().filter_map(code).collect());
}

/// The range of a line of /proc/self/maps (proc_pid_maps(5)), if it is code from a file that is
/// mapped without write permission.
fn code(line: &str) -> Option<Range> {
    let mut fields = line.split_ascii_whitespace();
    let (range, protection) = (fields.next()?, fields.next()?);
    let file = fields.nth(3)?;
    let (begin, end) = range.split_once('-')?;
    let address = |digits| usize::from_str_radix(digits, 16).ok();
    (protection == "r-xp" && file.starts_with('/')).then_some((address(begin)?, address(end)?))
}

/// Drops the code pages recorded by [`find_code`]. Code that is used again comes back from the page
/// cache; code that ran only once, such as the parsing of the command line, does not.
pub fn release_code() {
    for &(begin, end) in CODE.get().into_iter().flatten() {
        let address = std::ptr::without_provenance_mut(begin);
        // SAFETY: `code` takes only private mappings of files that cannot be written to, so that
        // the pages are those of the file and come back as they were; no library is ever unloaded.
        let released = unsafe { madvise(address, end - begin, Advice::LinuxDontNeed) };
        // If it fails, the code stays in memory, which does no harm.
        let _ = released;
    }
}

/// Keeps all descriptors except the standard ones from programs that are started from now on.
/// Otherwise, processes that outlive this one would hold open what its parent passed to it, such as
/// pipes and locks.
pub fn keep_descriptors() -> io::Result<()> {
    // SAFETY: only the close-on-exec flag of descriptors is set, which nothing in this process
    // depends on; close_range(2) takes no pointer.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `MPOL_BIND` of `linux/mempolicy.h`.
const MPOL_BIND: libc::c_long = 2;
/// Highest NUMA node that can be named; the kernel's own limit is 1024.
pub const MAX_NODE: u32 = 1023;

/// Binds the pages of a shared mapping of tmpfs or hugetlbfs to a NUMA node. The policy belongs
/// to the file: it holds for every later fault of every process, until the file is gone.
pub fn bind_to_node(mapping: &MmapRegion, node: u32) -> io::Result<()> {
    const BITS: u32 = libc::c_ulong::BITS;
    let mut mask: [libc::c_ulong; (MAX_NODE / BITS + 1) as usize] = [0; _];
    let word = usize::try_from(node / BITS).map_err(io::Error::other)?;
    let Some(word) = mask.get_mut(word) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    *word |= 1 << (node % BITS);
    // The kernel reads one bit less than the given number.
    let bits = libc::c_ulong::from(MAX_NODE) + 2;
    let flags: libc::c_uint = 0;
    // SAFETY: `mapping` is mapped for as long as it is borrowed, `mask` has at least `bits - 1`
    // bits, and the call changes neither the mapping's addresses nor its contents.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            mapping.as_ptr(),
            mapping.size(),
            MPOL_BIND,
            mask.as_ptr(),
            bits,
            flags,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The processor's time stamp counter now; `None` on processors without one.
pub fn time_stamp() -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: RDTSC has no operand, every x86-64 processor has it, and nothing here forbids it
    // (prctl(2), PR_SET_TSC).
    return Some(unsafe { std::arch::x86_64::_rdtsc() });
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// How the process of a pidfd ended. Linux 6.15 and later report it once the parent has reaped the
/// process.
pub fn exit_status(pidfd: impl AsFd) -> Option<ExitStatus> {
    let told = u64::from(libc::PIDFD_INFO_EXIT);
    // SAFETY: it has numbers only, and 0 is one.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = told;
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: the kernel writes to `info`, and no more than its size, which is part of the
    // request's number.
    let result = unsafe { libc::ioctl(fd, libc::PIDFD_GET_INFO, &raw mut info) };
    (result == 0 && info.mask & told != 0).then(|| ExitStatus::from_raw(info.exit_code))
}

/// A time in the time zone of this process, from seconds since the beginning of 1970, UTC.
pub fn local_time(seconds: u64) -> Option<libc::tm> {
    let seconds = libc::time_t::try_from(seconds).ok()?;
    // SAFETY: it has numbers, for which 0 is one, and a pointer that may be null.
    let mut time: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both point to values that live until the call returns; it writes to `time` alone.
    let result = unsafe { libc::localtime_r(&raw const seconds, &raw mut time) };
    (!result.is_null()).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_files_is_released() {
        let line = |protection, file| format!("5574-5575 {protection} 00012000 fe:00 123   {file}");
        assert_eq!(code(&line("r-xp", "/bin/x")), Some((0x5574, 0x5575)));
        for (protection, file) in [
            ("r--p", "/bin/x"),
            ("rwxp", "/bin/x"),
            ("r-xs", "/bin/x"),
            ("r-xp", ""),
            ("r-xp", "[vdso]"),
        ] {
            assert_eq!(code(&line(protection, file)), None, "{protection} {file}");
        }
    }

    #[test]
    fn a_process_goes_on_after_its_code_was_released() {
        find_code();
        assert!(CODE.get().is_some_and(|code| !code.is_empty()));
        release_code();
        assert_eq!("still here".replace("still ", ""), "here");
    }

    #[test]
    fn refuses_what_is_not_open() {
        for number in [1_000_000, -1] {
            assert_eq!(inherited_fd(number).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        assert_eq!(inherited_fd(1).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
