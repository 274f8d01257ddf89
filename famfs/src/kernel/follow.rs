// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Follows the log of a mounted file system: what another system publishes becomes a file here.
//!
//! There is no event between systems that share memory, so the log's header is polled. A poll is
//! one read(2), not a load from a mapping: if the memory is poisoned or gone, the read fails
//! instead of raising a signal. Only entries that were not read yet are read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::format;
use crate::format::map::DataArea;
use crate::format::renumbering::{RENUMBERING_MAGIC, RENUMBERING_OFFSET, Renumbering};
use crate::kernel::apply::{Appeared, Applied};
use crate::kernel::mount::MountError;
use crate::kernel::play::MOST_READS;
use crate::kernel::player::{Player, PlayerError, Task};
use crate::kernel::volume::MountedVolume;
use crate::replay::{Plan, reclaim};
use crate::store::log::{Log, LogError};
use crate::store::role::Role;
use crate::store::superblock::{Superblock, SuperblockError};
use crate::sys::ioctl::FileType;
use crate::text::error_report::one_line;
use crate::write::volume::Volume;

/// Bytes of the log's header: one cache line holds them.
const HEADER_LEN: usize = size_of::<format::LogHeader>();
/// Bytes of the superblock that are polled.
const SUPERBLOCK_LEN: usize = size_of::<format::Superblock>();
/// Bytes of the two records of how far entries have moved.
const RECORDS_LEN: usize = 2 * size_of::<Renumbering>();
/// How often the superblock is polled: it changes only when a file system is formatted again, its
/// master changes, or entries get other slots.
const SUPERBLOCK_PERIOD: Duration = Duration::from_millis(100);

/// Why a log cannot be followed, for good or for now.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The file system's own files cannot be accessed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The memory cannot be accessed: it is poisoned, or its device is gone.
    #[error("cannot read the {name}; its memory is poisoned or its device is gone")]
    Memory {
        /// "superblock" or "log".
        name: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// There is no usable superblock, possibly only until it is completely written.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// The log's header is not usable, possibly only until it is completely written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log is not one for this mount.
    #[error(transparent)]
    Player(#[from] PlayerError),
    /// Another file system is where the mounted one was.
    #[error(
        "the file system was formatted again: it was {old}, now it is {new}; the files that are \
         mounted here are those of the old one: unmount and mount again"
    )]
    Remade {
        /// UUID of the file system that is mounted.
        old: Uuid,
        /// UUID of the one that is there now.
        new: Uuid,
    },
    /// Entries that were read are no longer published.
    #[error(
        "the log was rewritten: {read} entries were read, now it has {found}; the files that are \
         mounted here may be those of the old one: if this stays, unmount and mount again"
    )]
    Rewritten {
        /// Entries that were read.
        read: u64,
        /// Entries that are published now.
        found: u64,
    },
    /// The last entry that was read is another one.
    #[error(
        "the log was rewritten: its slot {slot} has another entry than the one that was read; the \
         files that are mounted here may be those of the old log: if this stays, unmount and mount \
         again"
    )]
    Replaced {
        /// The entry's slot.
        slot: u64,
    },
}

impl FollowError {
    /// Whether the log's entries moved into other slots while they were read.
    fn is_overtaken(&self) -> bool {
        match self {
            Self::Log(LogError::Moved { .. }) => true,
            Self::Player(err) => err.is_overtaken(),
            _ => false,
        }
    }

    /// Whether another look may help: what one store of another system has caused, or a process of
    /// this system with a lock, another one can undo.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Superblock(_) | Self::Log(_) | Self::Rewritten { .. } | Self::Replaced { .. } => {
                true
            }
            Self::Mount(err) => matches!(err, MountError::Lock(_)),
            Self::Player(err) => err.may_pass(),
            Self::Remade { .. } | Self::Memory { .. } => false,
        }
    }
}

/// The result of reading new entries once.
#[derive(Debug, Default)]
pub struct Step {
    /// What was made, and what could not be.
    pub applied: Applied,
    /// Entries that are left out of the plan, and other damage, in words.
    pub problems: Vec<String>,
}

/// A mounted file system and how far its log is played.
pub struct Follower {
    volume: MountedVolume,
    superblock_file: File,
    log_file: File,
    superblock: Superblock,
    superblock_bytes: [u8; SUPERBLOCK_LEN],
    records: [u8; RECORDS_LEN],
    header: [u8; HEADER_LEN],
    /// When the superblock was last polled.
    looked: Instant,
    /// The part of the device that files may use. It only grows below a mount, whatever anybody
    /// stores.
    area: DataArea,
    player: Player,
    /// Fewer entries were seen than had been read, so the log may be another one.
    suspect: bool,
    /// The number that changes when entries become void, as it was when the plan was read.
    voided: u64,
    /// Number of entries left out of the plan that were reported.
    told: usize,
    system: Option<Uuid>,
}

impl Follower {
    /// Plays a whole log and remembers how far it went. `system` is this system's UUID; without one
    /// it is a client. `each` gets every file and directory that is made.
    pub fn start(
        volume: MountedVolume,
        system: Option<Uuid>,
        each: impl FnMut(Appeared<'_>),
    ) -> Result<(Self, Step), FollowError> {
        let superblock_file = volume.mounted().meta_file(FileType::Superblock)?;
        let log_file = volume.mounted().meta_file(FileType::Log)?;
        // The header before the entries: the next look sees what is published in between.
        let superblock_bytes = read("superblock", &superblock_file, 0)?;
        let records = read("superblock", &superblock_file, RENUMBERING_OFFSET)?;
        let header = read("log", &log_file, 0)?;
        let superblock = Superblock::read(volume.media())?;
        let log = Log::open(volume.media(), superblock.log_len)?;
        let area = superblock.data_area(volume.media().len());
        let extensions = superblock.has_extensions(volume.media())?;
        let player = Player::new(area, extensions);
        let counters = log.counter_problem();
        let mut step = Step::default();
        step.problems.extend(counters.as_ref().map(|err| one_line(err)));
        let mut follower = Self {
            superblock_file,
            log_file,
            superblock,
            superblock_bytes,
            records,
            header,
            looked: Instant::now(),
            area,
            player,
            suspect: false,
            voided: 0,
            told: 0,
            system,
            volume,
        };
        follower.make_undisturbed(&mut step, each)?;
        Ok((follower, step))
    }

    /// The file system.
    pub fn volume(&self) -> &MountedVolume {
        &self.volume
    }

    /// Identity of the file system.
    pub fn fs_uuid(&self) -> Uuid {
        self.superblock.fs_uuid
    }

    /// What the log describes, as far as it was read.
    pub fn plan(&self) -> &Plan {
        self.player.plan()
    }

    /// Which numbers the slots of the plan have; `None` if that is not certain.
    pub fn numbering(&self) -> Option<u64> {
        self.player.numbering()
    }

    /// What this system may do, by the superblock as it was last seen.
    pub fn role(&self) -> Role {
        self.system.map_or(Role::Client, |system| Role::of(&self.superblock, system))
    }

    /// Whether files or directories could not be made or removed, so that [`Self::advance`] is
    /// worth a try even if nothing changed.
    pub fn has_failed(&self) -> bool {
        self.player.has_failed()
    }

    /// Checks whether anything was published since.
    pub fn look(&mut self) -> Result<bool, FollowError> {
        let header = read("log", &self.log_file, 0)?;
        let mut changed = header != self.header;
        if changed || self.looked.elapsed() >= SUPERBLOCK_PERIOD {
            self.looked = Instant::now();
            let bytes = read("superblock", &self.superblock_file, 0)?;
            changed |= bytes != self.superblock_bytes;
            let records = read("superblock", &self.superblock_file, RENUMBERING_OFFSET)?;
            changed |= records != self.records;
        }
        if !changed {
            // If memory is not coherent between hosts, the next look must not see this one's cache
            // lines.
            self.volume.media().refresh(0, SUPERBLOCK_LEN as u64).map_err(MountError::from)?;
            let header_len = HEADER_LEN as u64;
            let media = self.volume.media();
            media.refresh(format::LOG_OFFSET, header_len).map_err(MountError::from)?;
            let records = (RENUMBERING_OFFSET, RECORDS_LEN as u64);
            media.refresh(records.0, records.1).map_err(MountError::from)?;
        }
        Ok(changed)
    }

    /// Reads the entries that were published since, makes and removes their files, and retries what
    /// failed before. An error loses nothing: the next call continues from there.
    pub fn advance(&mut self, each: impl FnMut(Appeared<'_>)) -> Result<Step, FollowError> {
        let superblock_bytes = read("superblock", &self.superblock_file, 0)?;
        let records = read("superblock", &self.superblock_file, RENUMBERING_OFFSET)?;
        let header = read("log", &self.log_file, 0)?;
        let media = self.volume.media();
        let superblock = Superblock::parse(&superblock_bytes, media.origin())?;
        let (old, new) = (self.superblock.fs_uuid, superblock.fs_uuid);
        if old != new {
            return Err(FollowError::Remade { old, new });
        }
        if header[..8] == RENUMBERING_MAGIC.to_le_bytes() {
            // The next look sees when it has ended; until then nothing is new. What the log will be
            // takes as much memory as the log.
            (self.superblock_bytes, self.records, self.header) =
                (superblock_bytes, records, header);
            return Ok(Step::default());
        }
        let log = Log::open(media, superblock.log_len)?;
        if log.is_moving() {
            // It has begun since; the next look sees that.
            return Ok(Step::default());
        }
        match check(&self.player, &mut self.suspect, &log) {
            // It is read again from the start.
            Err(err) if err.is_overtaken() => {}
            checked => checked?,
        }
        // If extensions were turned on meanwhile, entries that were unknown ones count now.
        if !self.plan().has_extensions() && superblock.has_extensions(media)? {
            self.player = Player::new(self.area, true);
        }
        let mut step = Step::default();
        step.problems.extend(log.counter_problem().as_ref().map(|err| one_line(err)));
        self.superblock = superblock;
        self.make_undisturbed(&mut step, each)?;
        (self.superblock_bytes, self.records, self.header) = (superblock_bytes, records, header);
        Ok(step)
    }

    /// The same as [`Follower::make`], again while entries move into other slots.
    fn make_undisturbed(
        &mut self,
        step: &mut Step,
        mut each: impl FnMut(Appeared<'_>),
    ) -> Result<(), FollowError> {
        let mut again = 0;
        loop {
            match self.make(step, &mut each) {
                Err(err) if err.is_overtaken() && again < MOST_READS => again += 1,
                made => return made,
            }
        }
    }

    /// Has the mount follow, and reports what is left out.
    fn make(
        &mut self,
        step: &mut Step,
        mut each: impl FnMut(Appeared<'_>),
    ) -> Result<(), FollowError> {
        let _only_player = self.volume.lock_for_play()?;
        let log = Log::open(self.volume.media(), self.superblock.log_len)?;
        // Later than the number of entries: what they use was free when they were published.
        let voided = reclaim::number(self.volume.media()).map_err(MountError::from)?;
        if !reclaim::is_same(self.voided, voided) {
            self.player.read_again(self.area);
            self.voided = voided;
            self.told = 0;
        }
        // Likewise: what was published before may use what the file system got before.
        let now = self.superblock.area_now(self.volume.media()).map_err(MountError::from)?;
        if now.start == self.area.start && now.end > self.area.end {
            self.area = now;
            self.player.read_again(now);
            self.told = 0;
        }
        if self.numbering() != log.numbering() {
            self.told = 0;
        }
        let has_no_writer = || self.volume.has_no_writer();
        let site = self.volume.site(&has_no_writer);
        step.applied = self.player.play(&site, &log, self.area, Task::default(), &mut each)?;
        let plan = self.player.plan();
        let refused = plan.refused.get(self.told..).unwrap_or_default();
        step.problems.extend(refused.iter().map(|err| one_line(err)));
        step.problems.extend(plan.stopped.as_ref().map(|err| one_line(err)));
        self.told = plan.refused.len();
        Ok(())
    }
}

/// Makes sure that a log with the numbers that were read is the one that was read. Once fewer
/// entries were seen it is `suspect`.
fn check(player: &Player, suspect: &mut bool, log: &Log<'_>) -> Result<(), FollowError> {
    if log.numbering() != player.numbering() {
        *suspect = false;
        return Ok(());
    }
    let (read, found) = (player.plan().next_slot(), log.published());
    *suspect |= found < read;
    if found < read {
        return Err(FollowError::Rewritten { read, found });
    }
    if *suspect
        && let Some(slot) = read.checked_sub(1)
        && log.checksum(slot)? != player.plan().last_checksum()
    {
        return Err(FollowError::Replaced { slot });
    }
    *suspect = false;
    Ok(())
}

fn read<const LEN: usize>(
    name: &'static str,
    file: &File,
    offset: u64,
) -> Result<[u8; LEN], FollowError> {
    let mut bytes = [0; LEN];
    file.read_exact_at(&mut bytes, offset)
        .map_err(|source| FollowError::Memory { name, source })?;
    Ok(bytes)
}

/// How long to wait between two polls: briefly after a change, because changes come in groups, and
/// longer the longer nothing happens.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    longest: Duration,
    pause: Duration,
    /// Polls at the shortest pause that are left.
    quick: u32,
}

impl Pace {
    /// Pause right after a change.
    pub const SHORTEST: Duration = Duration::from_millis(1);
    /// Number of polls at the shortest pause after a change.
    const QUICK_LOOKS: u32 = 100;

    /// A pace that slows down to a pause of `longest`.
    pub fn new(longest: Duration) -> Self {
        Self { longest, pause: longest.min(Self::SHORTEST), quick: Self::QUICK_LOOKS }
    }

    /// The pause before the next poll.
    pub fn pause(self) -> Duration {
        self.pause
    }

    /// Whether something was found a short time ago.
    pub fn is_quick(self) -> bool {
        self.quick > 0
    }

    /// Something was found.
    pub fn hurry(&mut self) {
        *self = Self::new(self.longest);
    }

    /// Nothing was found.
    pub fn relax(&mut self) {
        match self.quick.checked_sub(1) {
            Some(quick) => self.quick = quick,
            None => self.pause = (self.pause * 2).min(self.longest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_slows_down_and_hurries() {
        let longest = Duration::from_millis(5);
        let mut pace = Pace::new(longest);
        for _ in 0..Pace::QUICK_LOOKS {
            assert_eq!((pace.pause(), pace.is_quick()), (Pace::SHORTEST, true));
            pace.relax();
        }
        assert!(!pace.is_quick());
        let pauses: Vec<_> = (0..4)
            .map(|_| {
                pace.relax();
                pace.pause().as_millis()
            })
            .collect();
        assert_eq!(pauses, [2, 4, 5, 5]);
        pace.hurry();
        assert_eq!((pace.pause(), pace.is_quick()), (Pace::SHORTEST, true));
        assert_eq!(Pace::new(Duration::from_micros(10)).pause(), Duration::from_micros(10));
    }
}
