// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why a copy fails.

use std::io;
use std::path::PathBuf;

use crate::format::extension::PAGE;
use crate::format::path::RelPath;
use crate::text::terminal::shown;
use crate::text::units::human;
use crate::write::error::compact_hint;
use crate::write::sources::{SourceError, Unsupported};
use crate::write::unsupported::first_names;
use crate::write::writer::WriteError;

/// Why sources cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A source is not fit to be copied.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Targets that are already something else.
    #[error("{} taken, so nothing was written:{}", targets(.0.len(), "is", "are"), first_names(.0))]
    Taken(Vec<Unsupported>),
    /// Targets that would keep an owner or mode that is not the source's.
    #[error(
        "{} with another owner or mode, which no copy changes, so nothing was \
         written:{}\nremove them first with `famfs rm`, pass theirs with --uid, --gid and --mode, \
         or use --skip-unsupported to copy and keep them", targets(.0.len(), "exists", "exist"), first_names(.0)
    )]
    Kept(Vec<Unsupported>),
    /// All files together need more than is free.
    #[error(
        "no space: the files need {} in {}, {} free; nothing was written{}{}{}",
        human(*.needed), match *.unit { PAGE => "pages of 4 KiB", _ => "units of 2 MiB" },
        human(*.free), holes_hint(*.holes), replace_hint(*.replaces), compact_hint(*.deleted)
    )]
    NoSpace {
        /// Sum of the files' sizes in whole units.
        needed: u64,
        /// Bytes of a unit.
        unit: u64,
        /// Free bytes.
        free: u64,
        /// Bytes of holes that take space.
        holes: u64,
        /// Whether some of the files take the place of others.
        replaces: bool,
        /// Bytes that a compaction frees.
        deleted: u64,
    },
    /// The source has another size or time than before, or is another file.
    #[error(
        "{} changed while it was copied: expected the same file with {size} bytes and the same time",
        shown(path)
    )]
    Changed {
        /// The source.
        path: PathBuf,
        /// Its size when the copy began.
        size: u64,
    },
    /// The source is no longer there.
    #[error("{} was there when the sources were examined, but vanished since", shown(.0))]
    Vanished(PathBuf),
    /// The memory does not hold what was written.
    #[error(
        "\"{path}\" differs from {} at offset {offset} after it was written",
        shown(source_path)
    )]
    Differs {
        /// The file in the file system.
        path: RelPath,
        /// The source.
        source_path: PathBuf,
        /// Offset of the first byte that differs.
        offset: u64,
    },
    /// A file has no memory for bytes of its source.
    #[error(
        "\"{path}\" exists and has a hole where {} has data: remove it first with `famfs rm`",
        shown(source_path)
    )]
    Hole {
        /// The file in the file system.
        path: RelPath,
        /// The source.
        source_path: PathBuf,
    },
    /// An existing file would have to be written to.
    #[error(
        "\"{path}\" exists and differs from {} at offset {offset}, so the copy cannot appear at \
         once; nothing was written: remove it first, or copy with --replace or without --atomic",
        shown(source_path)
    )]
    NotAtomic {
        /// The file in the file system.
        path: RelPath,
        /// The source.
        source_path: PathBuf,
        /// Offset of the first byte that differs.
        offset: u64,
    },
    /// The user asked to stop.
    #[error("interrupted; {}", match *.atomic {
        true => "nothing was written",
        false => "what was complete is kept: run the same command again to continue",
    })]
    Interrupted {
        /// Whether all was to appear at once.
        atomic: bool,
    },
    /// The file could not be written.
    #[error("cannot write \"{path}\"")]
    Target {
        /// The file in the file system.
        path: RelPath,
        /// The error of the system.
        source: io::Error,
    },
    /// An existing file could not be read.
    #[error("cannot read \"{path}\", so nothing was written")]
    Existing {
        /// The file in the file system.
        path: RelPath,
        /// The error of the system.
        source: io::Error,
    },
    /// A thread panicked.
    #[error(
        "\"{path}\" is not complete: a thread that copied it panicked ({message}); please report this"
    )]
    Panicked {
        /// The file in the file system.
        path: RelPath,
        /// What the panic said.
        message: String,
    },
    /// No thread could be started.
    #[error("cannot start a thread that copies")]
    Threads(#[source] io::Error),
    /// Files that were overwritten may not survive a crash.
    #[error("cannot make the copied files durable")]
    Sync(#[source] io::Error),
    /// The file system could not be changed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

fn targets(count: usize, one: &str, many: &str) -> String {
    format!("{count} of the targets {}", if count == 1 { one } else { many })
}

fn replace_hint(replaces: bool) -> &'static str {
    match replaces {
        true => "; --replace needs room for the old files and the new ones",
        false => "",
    }
}

fn holes_hint(holes: u64) -> String {
    match holes {
        0 => String::new(),
        _ => format!(
            " ({} of the sources are holes, which take space without extensions)",
            human(holes)
        ),
    }
}
