// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Parsers for the numbers that several options take.

use famfs::text::number::number;

/// Highest user and group ID; to chown(2) the next number means "leave unchanged".
const MAX_ID: u32 = u32::MAX - 1;
/// Highest number of threads, the same as the reference's.
const MAX_THREADS: u16 = 256;

/// A parser for user and group IDs.
pub(super) fn id() -> impl Fn(&str) -> Result<u32, String> + Clone {
    number(0..=MAX_ID)
}

/// A parser for the seeds of `creat` and `verify`.
pub(super) fn seed() -> impl Fn(&str) -> Result<u32, String> + Clone {
    number(0..=u32::MAX)
}

/// A parser for numbers of threads.
pub(super) fn threads() -> impl Fn(&str) -> Result<u16, String> + Clone {
    number(0..=MAX_THREADS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_user_has_the_number_that_leaves_the_owner() {
        assert!(id()("4294967295").is_err() && seed()("4294967295").is_ok());
    }
}
