// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The build results, passed from `cargo xtask test` to the test programs that it runs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The paths of everything that a virtual machine needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Artifacts {
    /// QEMU, 11.1 or newer.
    pub qemu: PathBuf,
    /// `mkfs.erofs`, for passing files to a guest as a disk.
    pub mkfs_erofs: PathBuf,
    /// `systemd-analyze` of the image's systemd, for rating its units.
    pub systemd_analyze: PathBuf,
    /// The directory of the appliance image.
    pub image: PathBuf,
    /// The directory of the same image with the long-term kernel, for the tests that need it.
    pub lts_image: Option<PathBuf>,
    /// The directory of the same image with the oldest kernel that serves devdax devices.
    pub oldest_image: Option<PathBuf>,
    /// The directory of the host's programs.
    pub programs: PathBuf,
    /// The program `trees`, for guests.
    pub trees: PathBuf,
    /// The directory of the module's test programs.
    pub module_tests: PathBuf,
    /// A directory with programs for guests and their libraries, for the tests that need them;
    /// guests see it at [`Self::GUEST_PROGRAMS`].
    pub guest_programs: Option<PathBuf>,
    /// A directory with the disk of a Debian of its own, in two formats, and what boots it, for the
    /// scenario [`Self::OWN_GUEST`].
    pub own_guest: Option<PathBuf>,
    /// Where console logs go.
    pub logs: PathBuf,
    /// Where sockets and other files go that exist only during a run.
    pub runtime: PathBuf,
    /// Whether to run tests that are too slow for continuous integration.
    pub all: bool,
    /// Whether the image has the debug kernel, which is slow but has fault injection.
    pub debug_kernel: bool,
}

impl Artifacts {
    /// The environment variable that names the file with this description.
    pub const VARIABLE: &str = "VHOST_FAMFS_ARTIFACTS";

    /// The scenario of the cluster suite with a guest of the user's own.
    pub const OWN_GUEST: &str = "own-guest";

    /// Where guests see [`Self::guest_programs`].
    pub const GUEST_PROGRAMS: &str = "/run/tests";

    /// Writes the description to a file.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("cannot describe the artifacts")?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads the description that [`Self::VARIABLE`] names.
    pub fn from_env() -> Result<Self> {
        let path = env::var_os(Self::VARIABLE).with_context(|| {
            format!("{} is not set: run this through 'cargo xtask test'", Self::VARIABLE)
        })?;
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("cannot parse {}", path.display()))
    }
}
