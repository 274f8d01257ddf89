// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a device shows, as the user named it.

use std::fmt::{self, Display};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a device shows, as the user named it. Kept for `recover`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Source {
    /// An image.
    Image {
        /// The image, as an absolute path.
        image: PathBuf,
        /// Where changes go.
        changes: Changes,
    },
    /// A pool, as guests see it.
    Pool {
        /// The pool, as an absolute path.
        pool: PathBuf,
        /// Whether writes are refused.
        read_only: bool,
        /// Whether the pool may belong to another user.
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
    /// Into this overlay file (an absolute path), which is created if it does not exist.
    Overlay(PathBuf),
    /// The device is read-only and shows the image with the changes in this overlay file.
    Frozen(PathBuf),
    /// Into an unnamed file in this directory, which is removed with the device.
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

    /// Whether another process can take over if the server is killed.
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
                    Changes::Ephemeral(_) => write!(f, ", changes discarded"),
                }
            }
        }
    }
}
