// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The place among the members of a virtual machine that cannot write the pool: its guest reports
//! how far it is, and this writes that into the pool.
//!
//! The machine UUID is the one that the launcher gave it, so whatever a guest reports is said of
//! that machine only.

use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use famfs::format::report::Report;
use famfs::media::{MediaError, PoolFile};
use famfs::store::identity::{Identity, RunningSystem};
use famfs::store::lease::Timing;
use famfs::store::members::{MemberError, Seat};
use famfs::store::superblock::{Superblock, SuperblockError};
use famfs::system::neighbours::PoolId;
use famfs::text::error_report::one_line;
use uuid::Uuid;

/// Time between two places of one machine, and after a failure: a guest may claim to be another
/// system again and again.
const PAUSE: Duration = Duration::from_secs(1);
const FAILED: Duration = Duration::from_secs(30);

/// Why a machine has no place.
#[derive(Debug, thiserror::Error)]
enum PlaceError {
    /// The pool cannot be written.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// Its superblock cannot be read.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// No place is free, or it was lost.
    #[error(transparent)]
    Member(#[from] MemberError),
    /// It is another pool, or another file system.
    #[error("it follows another file system than that of {}", .0.display())]
    Other(PathBuf),
}

/// The machine, and the pool that it has.
#[derive(Debug)]
pub struct Place {
    /// The pool file.
    pub pool: PathBuf,
    /// Which one it must be.
    pub id: PoolId,
    /// The machine UUID that the launcher gave it.
    pub machine: Uuid,
}

impl Place {
    /// Writes what is reported until nobody can report any more; then the place is free again. Why
    /// there is none is told once.
    pub fn run(self, reports: &Receiver<Report>, mut tell: impl FnMut(&str)) {
        let (mut seat, mut next) = (None::<(Uuid, RunningSystem, Seat)>, Instant::now());
        let mut is_told = false;
        for report in reports {
            let (system, boot) = (report.system, report.boot);
            let me = RunningSystem { system, machine: Some(self.machine), boot };
            seat = seat.filter(|(fs_uuid, is, _)| (*fs_uuid, *is) == (report.fs_uuid, me));
            if seat.is_none() && Instant::now() < next {
                continue;
            }
            let written = match &mut seat {
                Some((_, _, seat)) => write(seat, &report),
                None => self.take(&report, me).and_then(|mut taken| {
                    write(&mut taken, &report)?;
                    seat = Some((report.fs_uuid, me, taken));
                    Ok(())
                }),
            };
            next = Instant::now() + if written.is_ok() { PAUSE } else { FAILED };
            if let Err(error) = written {
                seat = None;
                if !std::mem::replace(&mut is_told, true) {
                    let text = one_line(&error);
                    tell(&format!("this VM, which cannot write the pool, has no place: {text}"));
                }
            }
        }
    }

    fn take(&self, report: &Report, me: RunningSystem) -> Result<Seat, PlaceError> {
        let media = PoolFile::open_for_place(&self.pool)?;
        let superblock = Superblock::read(&media)?;
        if media.id()? != self.id || superblock.fs_uuid != report.fs_uuid {
            return Err(PlaceError::Other(self.pool.clone()));
        }
        Ok(Seat::take(
            Box::new(media),
            report.fs_uuid,
            Identity::of_another(me),
            Timing::default(),
        )?)
    }
}

/// A report is also a beat.
fn write(seat: &mut Seat, report: &Report) -> Result<(), PlaceError> {
    seat.report(report.numbering, report.applied, report.released)?;
    Ok(seat.tend(Timing::default())?)
}
