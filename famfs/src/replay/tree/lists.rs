// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The entries right before the next one that hold pieces or a target, for the name that may come.

use std::collections::VecDeque;

use super::problem::TreeProblem;
use crate::format::extension::{LIST_LEN, ListBytes, MAX_LISTS};

/// Consecutive entries of pieces or of a target: as many of the last ones as a name can need.
#[derive(Debug, Default)]
pub struct Lists {
    entries: VecDeque<ListBytes>,
    /// The slot behind them.
    end: u64,
}

impl Lists {
    /// Adds the entry of a slot. Those before it count only if they are right before it.
    pub fn add(&mut self, slot: u64, bytes: ListBytes) {
        if slot != self.end {
            self.entries.clear();
        }
        if self.entries.len() == MAX_LISTS {
            self.entries.pop_front();
        }
        self.entries.push_back(bytes);
        self.end = slot + 1;
    }

    /// The bytes of the entries right before a slot that hold `len` bytes, and their number.
    pub fn take(&mut self, slot: u64, len: usize) -> Result<(Vec<u8>, u64), TreeProblem> {
        let entries = if slot == self.end { std::mem::take(&mut self.entries) } else { [].into() };
        let (needed, found) = (len.div_ceil(LIST_LEN), entries.len());
        let Some(before) = found.checked_sub(needed) else {
            return Err(TreeProblem::NoLists { needed, found });
        };
        let bytes = entries.range(before..).flatten().copied().collect();
        Ok((bytes, needed as u64))
    }
}
