// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Waits for a full log to have room again: the slots of deleted files come back a moment after
//! every virtual machine has let go of them.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use famfs::archive::import::ImportError;
use famfs::replay::reclaim;
use famfs::store::log::Log;
use famfs::store::superblock::Superblock;
use famfs::sys::dax::Access;
use famfs::write::copy::CopyError;
use famfs::write::writer::WriteError;
use famfs_cli::args::Command;

use crate::output::{Failure, INTERRUPTED, notice, stop_flag, stopped};
use crate::place::Place;
use crate::reclaiming::Slots;

/// How long to wait. Virtual machines under load need a second or two; what a program holds may
/// take for ever.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks at the log's header, and between two that read the whole log.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_TO_READ: Duration = Duration::from_secs(1);

/// A command that failed because the log has too few slots.
pub struct Shortage<'c> {
    pool: Option<&'c Path>,
    /// In the file system; nothing stands for the only one.
    path: Option<&'c Path>,
    needed: u64,
}

impl<'c> Shortage<'c> {
    /// Tells whether that is why the command failed, and whether it can be run again.
    pub fn of(pool: Option<&'c Path>, command: &'c Command, failure: &Failure) -> Option<Self> {
        let needed = failure.error.chain().find_map(slots_needed)?;
        let (path, is_repeatable) = target(command)?;
        is_repeatable.then_some(Self { pool, path, needed })
    }

    /// Waits until there is room; `false` if none is to come, or did not come in time. On the host,
    /// this gives back what nobody uses any more; a keeper does that for a mount.
    pub fn wait(&self) -> Result<bool, Failure> {
        let stop = stop_flag()?;
        let end = Instant::now() + PATIENCE;
        let (mut is_told, mut next_read) = (false, Instant::now());
        loop {
            if Instant::now() >= next_read {
                if !self.is_to_come()? {
                    return Ok(false);
                }
                if !std::mem::replace(&mut is_told, true) {
                    let seconds = PATIENCE.as_secs();
                    notice!(
                        "the log is full: waiting up to {seconds} s for the slots of deleted files"
                    );
                }
                if let Some(pool) = self.pool {
                    let place = Place::open(Some(pool), None, Access::Write)?;
                    place.reclaim_at_once(Slots::All);
                }
                next_read = Instant::now() + PAUSE_TO_READ;
            }
            if self.is_there()? {
                return Ok(true);
            }
            if Instant::now() >= end {
                return Ok(false);
            }
            if stopped(&stop) {
                return Err(Failure { code: INTERRUPTED, error: anyhow!("interrupted") });
            }
            thread::sleep(PAUSE);
        }
    }

    fn place(&self) -> Result<Place> {
        Place::open_link(self.pool, self.path, Access::Read)
    }

    fn is_there(&self) -> Result<bool> {
        let place = self.place()?;
        let media = place.volume.media();
        let log = Log::open(media, Superblock::read(media)?.log_len)?;
        Ok(!log.is_moving() && log.free_slots() >= self.needed)
    }

    /// Whether slots are about to be given back, and may be enough. Only what is still being
    /// released has an unknown number of them.
    fn is_to_come(&self) -> Result<bool> {
        let place = self.place()?;
        let found = reclaim::releasing(place.volume.media()).context("cannot read the log")?;
        let is_enough = match found.is_nothing() {
            true => self.needed <= found.free.saturating_add(found.voids),
            false => self.needed <= found.slots,
        };
        // A keeper acts only then; whoever has the pool file can at any time.
        let is_wanted = self.pool.is_some() || reclaim::is_short(found.free, found.slots);
        Ok(is_enough && (found.is_interrupted() || is_wanted))
    }
}

/// The number of slots that were missing, if an error is about that.
fn slots_needed(error: &(dyn std::error::Error + 'static)) -> Option<u64> {
    let write = match (error.downcast_ref(), error.downcast_ref()) {
        (Some(CopyError::Write(error)), _) | (_, Some(ImportError::Write(error))) => Some(error),
        _ => error.downcast_ref::<WriteError>(),
    };
    write?.slots_needed()
}

/// A path in the file system that a command changes, and whether the command can be run again after
/// it failed for want of slots: what it had published then, it takes as done.
fn target(command: &Command) -> Option<(Option<&Path>, bool)> {
    let (path, is_repeatable) = match command {
        Command::Mkdir(args) => (Some(&args.path), !args.change.dry_run),
        Command::Creat(args) => {
            let first = args.multi.first().map(|file| &file.path);
            (args.path.as_ref().or(first), !args.change.dry_run)
        }
        Command::Cp(args) => (args.paths.last(), !(args.dry_run || args.out || args.compare)),
        Command::Import(args) => {
            // The bytes of a pipe are gone.
            let is_pipe = args.oci.is_none() && args.input.is_empty()
                || args.input.iter().any(|path| !path.is_file());
            (args.path.as_ref(), !(args.dry_run || is_pipe))
        }
        Command::Ln(args) => (args.paths.last(), !args.change.dry_run),
        Command::Mv(args) => (args.paths.last(), !args.change.dry_run),
        Command::Chmod(args) => (args.paths.first(), !args.change.dry_run),
        Command::Chown(args) => (args.paths.first(), !args.change.dry_run),
        Command::Touch(args) => (args.paths.first(), !args.change.dry_run),
        Command::Rm(args) => (args.paths.first(), !args.change.dry_run),
        _ => return None,
    };
    Some((path.map(AsRef::as_ref), is_repeatable))
}
