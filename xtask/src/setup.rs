// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask setup`: installs everything that the other commands need.

use anyhow::{Result, bail};

use crate::packages;
use crate::tools::Tools;

/// Makes sure that packages and tools are installed, and returns the tools.
pub fn run() -> Result<Tools> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "this command installs packages, builds a tools tree and runs programs in a mount \
             namespace, which needs root; run it as root"
        );
    }
    // Even if the tools exist: they may be older than the host packages that are needed now.
    packages::install_missing()?;
    if let Some(tools) = Tools::on_host() {
        return Ok(tools);
    }
    if let Some(tools) = Tools::cached()? {
        return Ok(tools);
    }
    Tools::build()
}
