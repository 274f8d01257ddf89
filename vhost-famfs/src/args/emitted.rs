// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `emitted`, which what `up --emit` prints runs before and after its VMs.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use famfs::text::number::number;
use uuid::Uuid;

use super::up::{MAX_SECONDS, name};

/// Make or remove the directory of a cluster that `up --emit` printed.
#[derive(Debug, Subcommand)]
pub(super) enum EmittedCommand {
    /// Make it, so that `ps`, `exec`, `console`, `logs` and `down` find the cluster.
    Start {
        /// The directory of all clusters.
        directory: PathBuf,
        /// What is known of the cluster, as JSON.
        state: String,
    },
    /// End what is left of the cluster and remove the directory. Pool and logs stay.
    Stop {
        /// The directory of all clusters.
        directory: PathBuf,
        /// The cluster.
        #[arg(value_parser = name)]
        name: String,
        /// The mark of its processes.
        instance: Uuid,
        /// Seconds that each guest has to shut down.
        #[arg(long, value_name = "SECONDS", default_value_t = 30,
            value_parser = number::<u64>(0..=MAX_SECONDS))]
        timeout: u64,
    },
}

/// What to do with the directory of an emitted cluster.
#[derive(Debug)]
pub enum EmittedConfig {
    /// Make it.
    Start {
        /// The directory of all clusters.
        base: PathBuf,
        /// What is known of the cluster.
        state: String,
    },
    /// Remove it.
    Stop {
        /// The directory of all clusters.
        base: PathBuf,
        /// The cluster.
        name: String,
        /// The mark of its processes.
        instance: Uuid,
        /// Time for each guest to shut down.
        limit: Duration,
    },
}

impl From<EmittedCommand> for EmittedConfig {
    fn from(command: EmittedCommand) -> Self {
        match command {
            EmittedCommand::Start { directory, state } => Self::Start { base: directory, state },
            EmittedCommand::Stop { directory, name, instance, timeout } => {
                Self::Stop { base: directory, name, instance, limit: Duration::from_secs(timeout) }
            }
        }
    }
}
