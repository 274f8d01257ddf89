// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The NUMA nodes of the host.

use std::fmt;
use std::fs;
use std::io;

/// Nodes by their numbers, in the kernel's words: `0-2,5`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nodes(String);

impl Nodes {
    /// Those that have memory.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn with_memory() -> io::Result<Self> {
        let found = fs::read_to_string("/sys/devices/system/node/has_memory")?;
        Ok(Self(found.trim().to_owned()))
    }

    /// Whether a node is among them.
    #[must_use]
    pub fn has(&self, node: u32) -> bool {
        self.0.split(',').any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let bounds = (first.parse::<u32>(), last.parse::<u32>());
            matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&node))
        })
    }
}

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists_of_nodes() {
        for (list, inside, outside) in [("0", 0, 1), ("0-2,5", 5, 4), ("0-2,5", 1, 6), ("", 9, 0)] {
            let nodes = Nodes(list.to_owned());
            assert_eq!(nodes.has(inside), !list.is_empty(), "{inside} in {list:?}");
            assert!(!nodes.has(outside), "{outside} in {list:?}");
        }
    }
}
