// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the kernel on which a test runs can do.

/// Whether it reports how a process that is not a child ended (`PIDFD_INFO_EXIT`): Linux 6.15.
pub fn tells_ends() -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_str().unwrap();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}
