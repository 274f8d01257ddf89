// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ublk`.

use std::io;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Subcommand};
use famfs::text::number::number;
use ublk::source::{Changes, Source};

use super::ArgsError;

/// Where discarded changes go, unless TMPDIR is set.
const SCRATCH: &str = "/var/tmp";

/// The highest device number (ublk_drv's UBLK_MAX_UBLKS).
const MAX_ID: u32 = (1 << 20) - 1;

#[derive(Debug, Subcommand)]
pub(super) enum UblkCommand {
    Add(AddArgs),
    List(ListArgs),
    Del(DelArgs),
    Recover(RecoverArgs),
}

/// Create a block device, /dev/ublkbN, and serve it until it is removed
///
/// With --image, many devices share one image, which is never written to; each device keeps its
/// changes in an overlay of its own. With --pool, the device shows the pool as guests see it.
///
/// The command prints the name of the device once it is ready, and keeps running to serve it. It
/// ends when `ublk del`, SIGTERM or SIGINT removes the device. If it is killed, programs that use
/// the device wait until `ublk recover` serves it again.
///
/// Examples:
///
///   vhost-famfs ublk add --image root.img --overlay vm1.overlay &
///
///   systemd-run --unit=vm1-disk vhost-famfs ublk add --image root.img --ephemeral
///
///   vhost-famfs ublk add --pool /dev/shm/pool --read-only
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
#[command(group(ArgGroup::new("shown").args(["image", "pool"]).required(true)))]
#[command(group(ArgGroup::new("changes").args(["overlay", "ephemeral"])))]
pub(super) struct AddArgs {
    /// Image file or block device, only read. Its size must be a multiple of 512.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// File for the changes, created if it does not exist. It belongs to this image: if the image
    /// is another one or has changed, the command fails. The check reads the whole image.
    #[arg(long, value_name = "FILE", conflicts_with = "pool")]
    overlay: Option<PathBuf>,
    /// Discard the changes when the device is removed. They are kept in an unnamed file in $TMPDIR
    /// or /var/tmp. The device cannot be recovered.
    #[arg(long, conflicts_with_all = ["pool", "read_only"])]
    ephemeral: bool,
    /// Pool in tmpfs or in a regular file.
    #[arg(long, value_name = "FILE")]
    pool: Option<PathBuf>,
    /// Accept a pool that another user owns or can change, or whose name is a link.
    #[arg(long, requires = "pool")]
    foreign_pool: bool,
    /// Refuse writes. With --overlay, show the image with the changes in it.
    #[arg(long)]
    read_only: bool,
    /// Number of the device [default: the next free one]
    #[arg(long, value_name = "N", value_parser = number::<u32>(0..=MAX_ID))]
    id: Option<u32>,
    /// Number of queues, each with a thread [default: one per two processors, at most 4]
    #[arg(long, value_name = "N", value_parser = number::<u16>(1..=32))]
    queues: Option<u16>,
    /// Copy all data through the process, as for drivers without registered buffers.
    #[arg(long)]
    copy: bool,
    /// Whom the device is for, such as a VM; `ublk list --json` shows it.
    #[arg(long, value_name = "TEXT")]
    owner: Option<String>,
    /// Print the device as JSON.
    #[arg(long)]
    json: bool,
}

/// List all devices, including those of other programs.
///
/// STATE: live; waiting (the server is gone and programs wait, see `ublk recover`); failing (the
/// server is gone and requests fail); stopped (no block device).
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Print the devices as JSON.
    #[arg(long)]
    json: bool,
}

/// Remove a device. The process that serves it flushes its data and ends.
#[derive(Debug, Args)]
pub(super) struct DelArgs {
    /// Number or name of the device: 0, /dev/ublkb0.
    #[arg(value_parser = parse_id)]
    device: u32,
    /// Remove it even if it is mounted: from then on, all access to it fails.
    #[arg(long)]
    force: bool,
}

/// Serve a device whose process was killed.
///
/// Waiting programs continue, and no acknowledged write is lost. Like `ublk add`, the command
/// serves the device until it is removed.
#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    /// Number or name of the device: 0, /dev/ublkb0.
    #[arg(value_parser = parse_id)]
    device: u32,
    /// Print the device as JSON.
    #[arg(long)]
    json: bool,
}

/// What to do with which device.
#[derive(Debug)]
pub enum UblkConfig {
    /// Create a device and serve it.
    Add {
        /// What it shows.
        source: Source,
        /// Its number.
        id: Option<u32>,
        /// Number of queues.
        queues: Option<u16>,
        /// Do not use registered buffers.
        copy: bool,
        /// Whom it is for.
        owner: Option<String>,
        /// Print JSON.
        json: bool,
    },
    /// List all devices.
    List {
        /// Print JSON.
        json: bool,
    },
    /// Remove a device.
    Delete {
        /// Its number.
        id: u32,
        /// Even if it is in use.
        force: bool,
    },
    /// Serve a device that has no server.
    Recover {
        /// Its number.
        id: u32,
        /// Print JSON.
        json: bool,
    },
}

fn parse_id(text: &str) -> Result<u32, String> {
    let number = text.strip_prefix("/dev/").unwrap_or(text);
    let number = number.strip_prefix("ublkb").unwrap_or(number);
    self::number(0..=MAX_ID)(number).map_err(|err| format!("{err}, or a name like /dev/ublkb0"))
}

/// `recover` may run in another directory, so the record holds absolute paths.
fn absolute(path: &Path) -> Result<PathBuf, ArgsError> {
    let error = |source: io::Error| ArgsError::Path(path.to_owned(), source.to_string());
    std::path::absolute(path).map_err(error)
}

fn scratch() -> PathBuf {
    let dir = std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty());
    dir.map_or_else(|| PathBuf::from(SCRATCH), PathBuf::from)
}

impl AddArgs {
    fn changes(&self) -> Result<Changes, ArgsError> {
        Ok(match (&self.overlay, self.ephemeral, self.read_only) {
            (Some(overlay), _, false) => Changes::Overlay(absolute(overlay)?),
            (Some(overlay), _, true) => Changes::Frozen(absolute(overlay)?),
            (None, true, _) => Changes::Ephemeral(absolute(&scratch())?),
            (None, false, true) => Changes::None,
            (None, false, false) => return Err(ArgsError::NoChanges),
        })
    }

    fn source(&self) -> Result<Source, ArgsError> {
        match (&self.image, &self.pool) {
            (_, Some(pool)) => {
                let (pool, foreign) = (absolute(pool)?, self.foreign_pool);
                Ok(Source::Pool { pool, read_only: self.read_only, foreign })
            }
            (Some(image), None) => {
                Ok(Source::Image { image: absolute(image)?, changes: self.changes()? })
            }
            (None, None) => Err(ArgsError::NoChanges),
        }
    }
}

impl TryFrom<UblkCommand> for UblkConfig {
    type Error = ArgsError;

    fn try_from(command: UblkCommand) -> Result<Self, ArgsError> {
        Ok(match command {
            UblkCommand::Add(args) => Self::Add {
                source: args.source()?,
                id: args.id,
                queues: args.queues,
                copy: args.copy,
                owner: args.owner,
                json: args.json,
            },
            UblkCommand::List(ListArgs { json }) => Self::List { json },
            UblkCommand::Del(DelArgs { device, force }) => Self::Delete { id: device, force },
            UblkCommand::Recover(RecoverArgs { device, json }) => {
                Self::Recover { id: device, json }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_numbers_and_names() {
        for text in ["7", "ublkb7", "/dev/ublkb7"] {
            assert_eq!(parse_id(text), Ok(7));
        }
        for text in ["", "-1", "/dev/ublkc7", "sda"] {
            assert!(parse_id(text).is_err(), "{text}");
        }
    }
}
