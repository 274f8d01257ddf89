// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the kernel that a test runs on can do.

/// Whether it tells how a process ended that is no child (`PIDFD_INFO_EXIT`): Linux 6.15.
pub fn tells_ends() -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_str().unwrap();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}
