// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Progress bars.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar. It appears on a terminal only, and only if the work takes noticeably long.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// A bar for the work that `what` names, such as "allocating memory".
    pub(super) fn new(what: &str) -> Self {
        let bar = ProgressBar::no_length();
        let template = format!(
            "{what} {{bar:30}} {{binary_bytes}}/{{binary_total_bytes}} {{binary_bytes_per_sec}} {{eta}}"
        );
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    /// Shows how many bytes are done.
    pub(super) fn show(&self, done: u64, total: u64) {
        const NOTICED: Duration = Duration::from_millis(300);
        self.0.set_length(total);
        self.0.update(|state| state.set_pos(done));
        if self.0.elapsed() > NOTICED {
            self.0.tick();
        }
    }

    /// Removes the bar when the work is done.
    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }
}
