// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A wait for a guest.

use std::time::Duration;

use super::deadline::Deadline;
use super::exec_error::ExecError;

/// What to wait for, and how long.
pub(super) struct Wait<'a> {
    pub(super) doing: &'a str,
    pub(super) limit: Duration,
    pub(super) deadline: Deadline,
}

impl Wait<'_> {
    pub(super) fn left(&self) -> Result<Duration, ExecError> {
        self.deadline.left().ok_or_else(|| self.timeout())
    }

    pub(super) fn timeout(&self) -> ExecError {
        ExecError::Timeout { doing: self.doing.to_owned(), limit: self.limit }
    }
}
