// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sessions with the command, as documents: `tests/cli/*.md`.

use std::path::{Path, PathBuf};

/// A program of the system that a session may use.
fn program(name: &str) -> PathBuf {
    let found = ["/usr/bin", "/bin"].map(|dir| Path::new(dir).join(name));
    found.into_iter().find(|path| path.exists()).unwrap_or_else(|| panic!("{name} is not there"))
}

#[test]
fn sessions() {
    // The caller's shell settings must not matter.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let cases = trycmd::TestCases::new();
    cases.env("NO_COLOR", "1");
    for name in ["truncate", "ln"] {
        cases.register_bin(name, program(name));
    }
    cases.case("tests/cli/*.md");
}
