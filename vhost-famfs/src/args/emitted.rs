// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `emitted`: what the output of `up --emit` runs before and after its VMs.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use famfs::text::number::number;
use uuid::Uuid;

use super::up::{MAX_SECONDS, name};

/// Create or remove the directory of a cluster printed by `up --emit`.
#[derive(Debug, Subcommand)]
pub(super) enum EmittedCommand {
    /// Create it, so that `ps`, `exec`, `console`, `logs` and `down` find the cluster.
    Start {
        /// The directory that holds all clusters.
        directory: PathBuf,
        /// The state of the cluster, as JSON.
        state: String,
    },
    /// Stop what remains of the cluster and remove the directory. The pool and the logs are kept.
    Stop {
        /// The directory that holds all clusters.
        directory: PathBuf,
        /// The cluster.
        #[arg(value_parser = name)]
        name: String,
        /// The identifier that marks the cluster's processes.
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
    /// Create it.
    Start {
        /// The directory that holds all clusters.
        base: PathBuf,
        /// The state of the cluster, as JSON.
        state: String,
    },
    /// Remove it.
    Stop {
        /// The directory that holds all clusters.
        base: PathBuf,
        /// The cluster.
        name: String,
        /// The identifier that marks the cluster's processes.
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
