// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which pools the user's clusters have.

use std::path::Path;

use super::directory::{self, Directory};
use crate::pool::Identity;

/// The pools of all clusters, and the clusters' names. A cluster whose state cannot be read is
/// omitted.
#[must_use]
pub fn users(base: &Path) -> Vec<(Identity, String)> {
    let names = directory::names(base).unwrap_or_default();
    let pool = |name: String| {
        let state = Directory::new(base, &name).read().ok()??;
        let metadata = state.pool.path.metadata().ok()?;
        Some((Identity::from_metadata(&metadata), name))
    };
    names.into_iter().filter_map(pool).collect()
}
