// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Progress bars.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar. It appears on a terminal only, and only if the work takes noticeably long.
#[derive(Clone)]
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// A bar for the work that `what` names, such as "allocating memory".
    pub(super) fn new(what: &str) -> Self {
        Self::with(
            what,
            "{bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
        )
    }

    /// The same for work whose end is not known.
    pub(super) fn endless(what: &str) -> Self {
        Self::with(what, "{binary_bytes} {binary_bytes_per_sec}")
    }

    fn with(what: &str, fields: &str) -> Self {
        let bar = ProgressBar::no_length();
        if let Ok(style) = ProgressStyle::with_template(&format!("{what} {fields}")) {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Shows how many bytes are done.
    pub(super) fn show(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.count(done);
    }

    /// The same for work whose end is not known.
    pub(super) fn count(&self, done: u64) {
        const NOTICED: Duration = Duration::from_millis(300);
        self.0.update(|state| state.set_pos(done));
        if self.0.elapsed() > NOTICED {
            self.0.tick();
        }
    }

    /// Prints something else meanwhile.
    pub(super) fn suspend(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }

    /// Removes the bar when the work is done.
    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }
}
