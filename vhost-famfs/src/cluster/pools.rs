// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which pools the user's clusters have.

use std::io;
use std::path::Path;

use super::directory::{self, Directory, DirectoryError};
use crate::pool::Identity;

/// The pools of all clusters.
#[derive(Debug, Default)]
pub struct Users {
    /// Each with the name of its cluster.
    pub pools: Vec<(Identity, String)>,
    /// Why the pools of some clusters are not known.
    pub unknown: Vec<DirectoryError>,
}

/// Finds the pools of all clusters.
#[must_use]
pub fn users(base: &Path) -> Users {
    let mut users = Users::default();
    match directory::names(base) {
        Ok(names) => {
            for name in names {
                match pool_of(base, &name) {
                    Ok(pool) => users.pools.extend(pool.map(|pool| (pool, name))),
                    Err(error) => users.unknown.push(error),
                }
            }
        }
        Err(error) => users.unknown.push(error),
    }
    users
}

/// The pool of a cluster; `None` if it has none yet, or it is gone.
fn pool_of(base: &Path, name: &str) -> Result<Option<Identity>, DirectoryError> {
    let Some(state) = Directory::new(base, name).read()? else { return Ok(None) };
    let path = state.pool.path;
    match path.metadata() {
        Ok(metadata) => Ok(Some(Identity::from_metadata(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DirectoryError::Io { path, action: "look at it", source }),
    }
}
