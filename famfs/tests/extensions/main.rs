// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Logs with extension entries: what they describe, and why an entry is refused.
#![allow(clippy::unwrap_used, reason = "a test may end where it fails")]

mod beside;
mod compaction;
mod cycles;
mod damage;
#[path = "../common/formatting.rs"]
mod formatting;
mod groups;
mod links;
mod log;
mod model;
mod mounted;
mod reclaim;
mod refusals;
mod renumbered;
mod replaced;
mod sample;
mod tree;
