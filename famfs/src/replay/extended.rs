// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A check for code that supports only conventional entries: whether the log has any others.

use crate::replay::Plan;
use crate::text::terminal::escape_name;

/// Most names that the error gives.
const NAMED: usize = 3;

/// The log has extension entries, and the caller supports only conventional ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the log has {entries} extension entries{}; this command supports only conventional entries. \
     Use a newer version of the famfs tools",
    if .names.is_empty() { String::new() } else { format!(", such as {}", .names.join(", ")) }
)]
pub struct Extended {
    /// Number of extension entries that count.
    pub entries: u64,
    /// Paths of a few names that they made, as people can read them.
    pub names: Vec<String>,
}

impl Plan {
    /// Makes sure that the plan's nodes are all there is, as they are.
    pub fn require_conventional(&self) -> Result<(), Extended> {
        let tree = self.tree();
        if tree.is_conventional() {
            return Ok(());
        }
        let mut names = Vec::new();
        // The error only ends the walk early.
        let _ = tree.walk(crate::format::extension::NO_ENTRY, |path, listed| {
            let nodes = self.nodes();
            if nodes.binary_search_by_key(&listed.slot, |node| node.slot).is_err() {
                names.push(format!("\"{}\"", escape_name(path)));
            }
            if names.len() < NAMED { Ok(()) } else { Err(()) }
        });
        Err(Extended { entries: tree.extended(), names })
    }
}
