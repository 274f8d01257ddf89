// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask setup`: everything that the other commands need.

use anyhow::{Result, bail};

use crate::packages;
use crate::tools::Tools;

/// Makes sure that packages and tools are there, and returns the tools.
pub fn run() -> Result<Tools> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "this needs root: it installs packages, builds a tools tree and runs programs in a \
             mount namespace; run it as root"
        );
    }
    // Also where the tools are there: they may be older than what the host needs.
    packages::install_missing()?;
    if let Some(tools) = Tools::on_host() {
        return Ok(tools);
    }
    if let Some(tools) = Tools::cached()? {
        return Ok(tools);
    }
    Tools::build()
}
