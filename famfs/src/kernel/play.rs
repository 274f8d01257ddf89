// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Plays a log once: makes the files that it describes in a file system of the kernel.

use crate::format::path::RelPath;
use crate::kernel::apply::Applied;
use crate::kernel::mount::MountError;
use crate::kernel::player::{Player, PlayerError, Task};
use crate::kernel::volume::MountedVolume;
use crate::replay::{ContentsError, Plan};
use crate::store::log::Log;
use crate::store::superblock::Superblock;
use crate::text::error_report::one_line;
use crate::write::volume::Volume;

/// The result of playing a log.
#[derive(Debug)]
pub struct Played {
    /// What was made.
    pub applied: Applied,
    /// What could not be played, in words.
    pub problems: Vec<String>,
}

impl Played {
    /// Whether anything in the log could not be played.
    pub fn damaged(&self) -> bool {
        !self.problems.is_empty()
    }
}

/// Why a log could not be played at all.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// Another player does not release its lock, or the lock cannot be accessed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// There is no usable log.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// The log is not one for this mount.
    #[error(transparent)]
    Player(#[from] PlayerError),
}

/// How often a log is read again because its entries moved.
pub(super) const MOST_READS: u32 = 20;

/// Makes what of a log is missing in a mount, or with [`Task::dry_run`] finds out what is. `made`
/// gets each path.
///
/// # Errors
/// The log cannot be read. What cannot be made of it is not an error: see [`Played::problems`].
pub fn play(
    volume: &MountedVolume,
    task: Task,
    mut made: impl FnMut(&RelPath),
) -> Result<Played, PlayError> {
    let _only_player = (!task.dry_run).then(|| volume.lock_for_play()).transpose()?;
    let media = volume.media();
    let superblock = Superblock::read(media).map_err(ContentsError::from)?;
    let extensions = superblock.has_extensions(media).map_err(ContentsError::from)?;
    let mut area = superblock.data_area(media.len());
    let mut player = Player::new(area, extensions);
    let has_no_writer = || volume.has_no_writer();
    let site = volume.site(&has_no_writer);
    let mut again = 0;
    let (log, applied) = loop {
        let log = Log::open(media, superblock.log_len).map_err(ContentsError::from)?;
        let now = superblock.area_now(media).map_err(MountError::from)?;
        if now.end != area.end {
            area = now;
            player.read_again(area);
        }
        match player.play(&site, &log, area, task, &mut |new| made(new.path)) {
            Err(error) if error.is_overtaken() && again < MOST_READS => again += 1,
            played => break (log, played?),
        }
    };
    let mut problems = left_out(player.plan());
    problems.extend(log.counter_problem().iter().map(|problem| one_line(problem)));
    problems.extend(applied.errors.iter().map(|error| one_line(error)));
    Ok(Played { applied, problems })
}

/// What of a log is left out of its plan, in words.
pub fn left_out(plan: &Plan) -> Vec<String> {
    let refused = plan.refused.iter().map(|refused| format!("left out: {}", one_line(refused)));
    let stopped =
        plan.stopped.iter().map(|damage| format!("the log ends early: {}", one_line(damage)));
    let unmarked = (plan.unmarked > 0).then(|| {
        format!("left out: all that {} log entries of extensions made or changed", plan.unmarked)
    });
    refused.chain(unmarked).chain(stopped).collect()
}
