// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `doctor`.

use std::path::PathBuf;

use clap::Args;

/// Check whether this host can run clusters, and how to fix what is missing
///
/// Looks at VMMs and their versions, KVM (a guest of four instructions is run), the place for
/// sockets, memory and its limits, huge pages, and ublk. Changes nothing. `absent` marks what is
/// missing but only needed if you ask for it.
///
/// Exit codes: 0 clusters can be run, 1 they cannot, 2 wrong command line.
///
/// Example:
///
///   vhost-famfs doctor --json
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct DoctorArgs {
    /// Look at this QEMU instead of the one that would be found
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// How to look at the host.
#[derive(Debug)]
pub struct DoctorConfig {
    /// The QEMU that the user named.
    pub qemu: Option<PathBuf>,
    /// Print JSON.
    pub json: bool,
}

impl From<DoctorArgs> for DoctorConfig {
    fn from(DoctorArgs { qemu, json }: DoctorArgs) -> Self {
        Self { qemu, json }
    }
}
