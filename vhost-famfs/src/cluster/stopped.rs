// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a VM ended that was asked to.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ends::When;
use crate::vm::Shutdown;

/// How a VM ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The guest shut itself down.
    Orderly,
    /// The guest did not shut down; the VMM ended when asked to.
    Quit,
    /// The VMM was killed.
    Killed,
    /// It had already ended.
    WasDead,
    /// It had already been stopped.
    WasStopped,
    /// It was never started.
    NotStarted,
}

impl End {
    /// The name of the variant in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Orderly => "powered off",
            Self::Quit => "did not power off in time, stopped by its VMM",
            Self::Killed => "killed",
            Self::WasDead => "had already ended",
            Self::WasStopped => "had already been stopped",
            Self::NotStarted => "was not started",
        }
    }
}

impl From<Shutdown> for End {
    fn from(shutdown: Shutdown) -> Self {
        match shutdown {
            Shutdown::Orderly => Self::Orderly,
            Shutdown::Quit => Self::Quit,
            Shutdown::Killed => Self::Killed,
        }
    }
}

/// A VM that the user stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stopped {
    /// When: seconds from the beginning of 1970, UTC.
    pub time: u64,
    /// How it ended; `None` until it has, or if whoever stopped it was interrupted.
    pub end: Option<End>,
}

impl Stopped {
    /// Stopped at this moment.
    pub(super) fn now(end: Option<End>) -> Self {
        Self { time: When::now().0, end }
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("stopped by user")?;
        match self.end {
            Some(End::Quit) => f.write_str(" (by its VMM)")?,
            Some(End::Killed) => f.write_str(" (killed)")?,
            Some(End::WasDead) => f.write_str(" (had already ended)")?,
            _ => {}
        }
        write!(f, "{}", When(self.time))
    }
}
