// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Packages on the host, and where packages come from.
//!
//! The project names no mirror: the Debian archive that the host's own apt uses serves the
//! tools tree and the image too.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::exec;

/// The distribution release of the tools tree and of the appliance.
pub const SUITE: &str = "trixie";

/// The keyring that signs the archive, from the package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Host programs that `setup` needs, with the package that has each.
const NEEDED: &[(&str, &str)] =
    &[("mmdebstrap", "mmdebstrap"), ("unshare", "util-linux"), ("cc", "gcc"), ("c++", "g++")];

/// The URI of the Debian archive in the host's apt configuration. The lists that name the
/// origin of each source are fetched if they are missing, as they are on many fresh machines.
fn archive() -> Result<String> {
    if let Some(uri) = known_archive()? {
        return Ok(uri);
    }
    update()?;
    known_archive()?.context(
        "the host's apt configuration has no Debian archive (Origin Debian, component main); \
         add one to /etc/apt/sources.list.d and try again",
    )
}

/// The same, from the package lists that are there.
fn known_archive() -> Result<Option<String>> {
    let targets = exec::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Identifier: Packages",
        "Origin: Debian",
        "Label: Debian",
        "Component: main",
    ]))
    .context("cannot ask apt for its package sources")?;
    Ok(targets.lines().next().map(str::to_owned))
}

/// Fetches the package lists.
fn update() -> Result<()> {
    exec::step("apt-update", "Updating the package lists", Command::new("apt-get").arg("update"))
}

/// The contents of a deb822 sources file for [`SUITE`], its updates and its backports.
pub fn sources() -> Result<String> {
    let uri = archive()?;
    Ok(format!(
        "Types: deb\nURIs: {uri}\nSuites: {SUITE} {SUITE}-updates {SUITE}-backports\n\
         Components: main\nSigned-By: {KEYRING}\n"
    ))
}

/// Installs the host packages that are missing. Does nothing when none is.
pub fn install_missing() -> Result<()> {
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(program, _)| !exec::in_path(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() && std::path::Path::new(KEYRING).exists() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "missing packages: {} debian-archive-keyring; run 'cargo xtask setup' as root, or \
             install them with apt-get",
            missing.join(" ")
        );
    }
    if !exec::in_path("apt-get") {
        bail!("missing programs: {}; install them: this host has no apt-get", missing.join(" "));
    }
    update()?;
    exec::step(
        "apt-install",
        "Installing host packages",
        Command::new("apt-get")
            .args(["install", "--yes", "--no-install-recommends", "debian-archive-keyring"])
            .args(&missing)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}
