// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sizes as people read them.

/// A size with a binary unit, as in "1.50 GiB".
pub fn human(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
