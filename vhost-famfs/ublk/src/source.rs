// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a device is to show, as the user names it.

use std::fmt::{self, Display};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a device is to show, as the user names it. Kept for `recover`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Source {
    /// An image.
    Image {
        /// The image, absolute.
        image: PathBuf,
        /// Where changes go.
        changes: Changes,
    },
    /// What guests see of a pool.
    Pool {
        /// The pool, absolute.
        pool: PathBuf,
        /// No writes.
        read_only: bool,
        /// It may be another user's.
        #[serde(default)]
        foreign: bool,
    },
}

/// Where changes to an image go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Changes {
    /// There are none: the device is read-only.
    None,
    /// Into this overlay file, absolute, which is made if it is not there.
    Overlay(PathBuf),
    /// The device is read-only and shows what is in this overlay file.
    Frozen(PathBuf),
    /// Into a file without a name in this directory, which is gone when the device is.
    Ephemeral(PathBuf),
}

impl Source {
    /// Whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::Image { changes, .. } => matches!(changes, Changes::None | Changes::Frozen(_)),
            Self::Pool { read_only, .. } => *read_only,
        }
    }

    /// Whether another process can take over where one was killed.
    pub fn is_recoverable(&self) -> bool {
        !matches!(self, Self::Image { changes: Changes::Ephemeral(_), .. })
    }
}

impl Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool { pool, read_only, .. } => {
                let access = if *read_only { ", read-only" } else { "" };
                write!(f, "pool {}{access}", pool.display())
            }
            Self::Image { image, changes } => {
                write!(f, "{}", image.display())?;
                match changes {
                    Changes::None => write!(f, ", read-only"),
                    Changes::Overlay(path) => write!(f, ", changes in {}", path.display()),
                    Changes::Frozen(path) => {
                        write!(f, " with {}, read-only", path.display())
                    }
                    Changes::Ephemeral(_) => write!(f, ", changes not kept"),
                }
            }
        }
    }
}
