// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a tree that follows a log has not applied yet: new entries, and earlier ones that failed,
//! which are retried less and less often.

use std::time::{Duration, Instant};

use crate::format::path::RelPath;
use crate::kernel::apply::{Applied, ApplyError, Tree, apply_deletions, apply_nodes};
use crate::replay::{Node, Plan};

/// What has not been applied yet.
#[derive(Debug, Default)]
pub struct Backlog {
    /// The first slot that was never tried.
    next: u64,
    /// Files and directories that could not be made.
    nodes: Vec<RelPath>,
    /// Slots of deletions that could not be applied.
    deletions: Vec<u64>,
}

impl Backlog {
    /// Whether something failed, so that another try makes sense even if nothing is new.
    pub fn has_failed(&self) -> bool {
        !(self.nodes.is_empty() && self.deletions.is_empty())
    }

    /// Applies what failed and what is new, deletions first. `each` gets what is made.
    pub fn carry_out(
        &mut self,
        tree: &dyn Tree,
        plan: &Plan,
        mut each: impl FnMut(&Node),
    ) -> Applied {
        let again = self.deletions.iter().filter_map(|slot| plan.deletion(*slot));
        let deletions = again.chain(plan.deletions_since(self.next));
        let (removed, mut errors) = apply_deletions(tree, plan, deletions, false);
        let again = self.nodes.iter().filter_map(|path| plan.get(path));
        let new = plan.nodes_since(self.next).iter();
        // What failed may have been deleted, and made again by a new entry.
        let again = again.filter(|node| node.slot < self.next);
        let mut applied = apply_nodes(tree, again.chain(new), false, |path| {
            if let Some(node) = plan.get(path) {
                each(node);
            }
        });
        applied.removed = removed;
        errors.append(&mut applied.errors);
        applied.errors = errors;
        self.next = plan.next_slot();
        (self.nodes, self.deletions) = (Vec::new(), Vec::new());
        for error in &applied.errors {
            match error {
                ApplyError::Remove { slot, .. } => self.deletions.push(*slot),
                other => self.nodes.push(other.path().clone()),
            }
        }
        applied
    }
}

/// When to retry what failed: soon, and then less and less often.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pause: Duration,
    last: Instant,
}

impl Backoff {
    /// Pause before the second try.
    pub const SHORTEST: Duration = Duration::from_secs(1);
    /// Longest pause between two tries.
    pub const LONGEST: Duration = Duration::from_secs(30);

    /// After a first try that has just failed.
    pub fn new() -> Self {
        Self { pause: Self::SHORTEST, last: Instant::now() }
    }

    /// How long to wait before the next try.
    pub fn left(&self) -> Duration {
        self.pause.saturating_sub(self.last.elapsed())
    }

    /// Another try failed.
    pub fn failed(&mut self) {
        (self.pause, self.last) = ((self.pause * 2).min(Self::LONGEST), Instant::now());
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_become_rare_but_do_not_end() {
        let mut backoff = Backoff::new();
        assert!(backoff.left() <= Backoff::SHORTEST && !backoff.left().is_zero());
        for _ in 0..100 {
            backoff.failed();
        }
        assert!(backoff.left() <= Backoff::LONGEST && backoff.left() > Backoff::LONGEST / 2);
    }
}
