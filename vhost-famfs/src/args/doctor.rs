// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `doctor`.

use std::path::PathBuf;

use clap::Args;

/// Check whether this host can run clusters, and show how to fix what is missing
///
/// Checks VMMs and their versions, KVM (by running a guest of four instructions), the image that
/// VMs boot, the directory for sockets, memory and its limits, huge pages, and ublk. Changes
/// nothing. `absent` marks something that is missing but optional.
///
/// Exit codes: 0 this host can run clusters, 1 it cannot, 2 wrong command line.
///
/// Example:
///
///   vhost-famfs doctor --json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct DoctorArgs {
    /// Check this QEMU instead of the one that `up` would use
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// How to check the host.
#[derive(Debug)]
pub struct DoctorConfig {
    /// The QEMU that the user named, if any.
    pub qemu: Option<PathBuf>,
    /// Print JSON.
    pub json: bool,
}

impl From<DoctorArgs> for DoctorConfig {
    fn from(DoctorArgs { qemu, json }: DoctorArgs) -> Self {
        Self { qemu, json }
    }
}
