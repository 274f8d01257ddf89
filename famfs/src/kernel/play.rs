// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Plays a log: makes the files that it describes in a file system of the kernel.

use crate::format::path::RelPath;
use crate::kernel::apply::{Applied, apply};
use crate::kernel::mount::{MountError, MountedVolume};
use crate::replay::extended::Extended;
use crate::replay::{Contents, ContentsError, Plan};
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
    /// The log has entries of extensions, which cannot be mounted yet.
    #[error("nothing can be mounted")]
    Extended(#[from] Extended),
}

/// Makes everything of a log that is missing, or with `dry_run` finds out what is. `made` gets each
/// path.
///
/// # Errors
/// The log cannot be read. What cannot be made of it is not an error: see [`Played::problems`].
pub fn play(
    volume: &MountedVolume,
    dry_run: bool,
    made: impl FnMut(&RelPath),
) -> Result<Played, PlayError> {
    let _only_player = (!dry_run).then(|| volume.lock_for_play()).transpose()?;
    let Contents { log, plan, .. } = Contents::read(volume.media())?;
    plan.require_conventional()?;
    let applied = apply(volume, &plan, dry_run, made);
    let mut problems = left_out(&plan);
    problems.extend(log.counter_problem().iter().map(|problem| one_line(problem)));
    problems.extend(applied.errors.iter().map(|error| one_line(error)));
    Ok(Played { applied, problems })
}

/// What of a log is left out of its plan, in words.
pub fn left_out(plan: &Plan) -> Vec<String> {
    let refused = plan.refused.iter().map(|refused| format!("left out: {}", one_line(refused)));
    let stopped =
        plan.stopped.iter().map(|damage| format!("the log ends early: {}", one_line(damage)));
    refused.chain(stopped).collect()
}
