// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Playing a log: shared by `mount`, `logplay` and `attach`.

use anyhow::Result;
use famfs::format::path::RelPath;
use famfs::kernel::apply::Applied;
use famfs::kernel::play::Played;
use famfs::kernel::player::Task;
use famfs::kernel::volume::MountedVolume;
use famfs::store::role::{self, Role};
use famfs::text::error_report::one_line;
use serde::Serialize;
use uuid::Uuid;

use crate::output::{notice, print_json, say};

/// Makes everything of a log that is missing; reports on standard error what cannot be made.
pub fn play(volume: &MountedVolume, task: Task, verbose: bool) -> Result<Played> {
    let mut told = Ok(());
    let played = famfs::kernel::play::play(volume, task, |path| {
        if verbose && told.is_ok() {
            told = say!("{path}");
        }
    })?;
    for problem in &played.problems {
        notice!("{problem}");
    }
    told?;
    tell_unsafe_links(&played.applied.unsafe_links);
    Ok(played)
}

/// Names symbolic links that were left out.
fn tell_unsafe_links(links: &[RelPath]) {
    /// So many are named.
    const NAMED: usize = 3;
    let named: Vec<String> = links.iter().take(NAMED).map(|path| format!("\"{path}\"")).collect();
    if !named.is_empty() {
        let (count, more) = (links.len(), if links.len() > NAMED { ", ..." } else { "" });
        notice!(
            "{count} symbolic links that lead out of the mount are left out: {}{more}",
            named.join(", ")
        );
    }
}

/// This system's UUID, for its role. A system that has none is a client; the reason is reported.
pub fn system_or_client() -> Option<Uuid> {
    role::system_uuid().map_err(|err| notice!("client only: {}", one_line(&err))).ok()
}

/// The result of a play, for the reports.
#[derive(Serialize)]
pub struct PlayReport {
    version: u32,
    dry_run: bool,
    role: &'static str,
    files: u64,
    directories: u64,
    symlinks: u64,
    links: u64,
    existed: u64,
    errors: usize,
    damaged: bool,
}

impl PlayReport {
    /// Reports what playing a log did, or with `dry_run` would do.
    pub fn new(played: &Played, role: Role, dry_run: bool) -> Self {
        let Applied { files, directories, symlinks, links, existed, errors, .. } = &played.applied;
        Self {
            version: 1,
            dry_run,
            role: role.name(),
            files: *files,
            directories: *directories,
            symlinks: *symlinks,
            links: *links,
            existed: *existed,
            errors: errors.len(),
            damaged: played.damaged(),
        }
    }

    /// Prints the report as JSON, or as a line that begins with `name`.
    pub fn print(&self, json: bool, name: &str) -> Result<()> {
        if json {
            return print_json(self);
        }
        let would = if self.dry_run { "would make " } else { "" };
        let Self { files, directories, symlinks, links, existed, .. } = self;
        say!("{name}: {would}{}", new_names(*files, *directories, *symlinks, *links, *existed))
    }
}

/// What was made, in words.
pub fn summary(applied: &Applied) -> String {
    let Applied { files, directories, symlinks, links, existed, removed, moved, .. } = applied;
    let mut text = new_names(*files, *directories, *symlinks, *links, *existed);
    for (count, what) in [(removed, "deleted"), (moved, "moved")] {
        if *count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    text
}

fn new_names(files: u64, directories: u64, symlinks: u64, links: u64, existed: u64) -> String {
    let mut text = format!("{files} new files, {directories} new directories, ");
    for (count, what) in [(symlinks, "symbolic links"), (links, "hard links")] {
        if count > 0 {
            text += &format!("{count} new {what}, ");
        }
    }
    text + &format!("{existed} existed")
}
