// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Copying files and directory trees into a file system.
//!
//! In three steps: [`scan`] looks at the sources, [`Copy::prepare`] finds room for everything, and
//! only then [`Copy::run`] writes. So what cannot work fails before anything is written.

use std::collections::HashSet;
use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::format::ALLOC_UNIT;
use crate::map::FileMap;
use crate::path::{PathError, RelPath};
use crate::replay::{Node, NodeKind, Owner};
use crate::sys::dax::Access;
use crate::volume::{COPY_STEP, FileBytes, Volume, steps};
use crate::writer::{WriteError, Writer};

/// How many items an error message lists.
const LISTED: usize = 10;

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Copy directories with all that is in them.
    pub recursive: bool,
    /// Leave out what famfs cannot hold.
    pub skip_unsupported: bool,
    /// Permission bits instead of the source's.
    pub mode: Option<u32>,
    /// User instead of the source's.
    pub uid: Option<u32>,
    /// Group instead of the source's.
    pub gid: Option<u32>,
}

/// Where the sources go.
#[derive(Clone, Debug)]
pub enum Destination {
    /// Into a directory, under their own names; `None` is the root.
    Into(Option<RelPath>),
    /// The only source gets this path.
    As(RelPath),
}

/// A source that famfs cannot hold, or that does not fit what is there.
#[derive(Clone, Debug)]
pub struct Unsupported {
    /// The source.
    pub source: PathBuf,
    /// Why.
    pub reason: String,
}

/// Why sources are not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A source could not be read.
    #[error("cannot {action} {}", path.display())]
    Source {
        /// "read" or "look at".
        action: &'static str,
        /// The source.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A directory without `--recursive`.
    #[error("{} is a directory; use --recursive to copy it", .0.display())]
    NotRecursive(PathBuf),
    /// Sources that famfs cannot hold.
    #[error("{} of the sources cannot be copied, so nothing was written:{}\nuse --skip-unsupported to copy the rest", .0.len(), list(.0))]
    Unsupported(Vec<Unsupported>),
    /// Targets that are something else already.
    #[error("{} of the targets are taken, so nothing was written:{}", .0.len(), list(.0))]
    Taken(Vec<Unsupported>),
    /// All together need more than is free.
    #[error(
        "no space: the files need {needed} bytes in units of 2 MiB, {free} are free; nothing was written"
    )]
    NoSpace {
        /// Sum of the files' sizes in whole units.
        needed: u64,
        /// Free bytes.
        free: u64,
    },
    /// The source became shorter, or another file.
    #[error("{} changed while it was copied: expected the same file with {size} bytes", path.display())]
    Changed {
        /// The source.
        path: PathBuf,
        /// Its size when the copy began.
        size: u64,
    },
    /// The user asked to stop.
    #[error("interrupted; what was complete is kept")]
    Interrupted,
    /// The file could not be written.
    #[error("cannot write \"{path}\"")]
    Target {
        /// The file in the file system.
        path: RelPath,
        /// What the system says.
        source: io::Error,
    },
    /// Files that were overwritten may not survive a crash.
    #[error("cannot make durable what was copied")]
    Sync(#[source] io::Error),
    /// The file system could not be changed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

fn list(items: &[Unsupported]) -> String {
    let mut text = String::new();
    for item in items.iter().take(LISTED) {
        text.push_str(&format!("\n  {}: {}", item.source.display(), item.reason));
    }
    if items.len() > LISTED {
        text.push_str(&format!("\n  and {} more", items.len() - LISTED));
    }
    text
}

/// A file or directory to make.
#[derive(Clone, Debug)]
struct Item {
    source: PathBuf,
    path: RelPath,
    owner: Owner,
    /// Device and inode of the source.
    id: (u64, u64),
    /// `None` for a directory.
    size: Option<u64>,
}

/// What the sources hold, directories before what is in them.
#[derive(Debug, Default)]
pub struct Scan {
    items: Vec<Item>,
    /// What was left out.
    pub unsupported: Vec<Unsupported>,
}

/// Looks at the sources.
pub fn scan(
    sources: &[PathBuf],
    destination: &Destination,
    options: &Options,
) -> Result<Scan, CopyError> {
    let mut scan = Scan::default();
    for source in sources {
        // A source named by the user is followed if it is a symbolic link, as cp does.
        let metadata = fs::metadata(source).map_err(|err| source_error("look at", source, err))?;
        if metadata.is_dir() && !options.recursive {
            return Err(CopyError::NotRecursive(source.clone()));
        }
        let path = match destination {
            Destination::As(path) => path.as_bytes().to_vec(),
            Destination::Into(dir) => {
                let name = if names_contents(source) { None } else { source.file_name() };
                join(dir.as_ref().map(RelPath::as_bytes), name.map(OsStrExt::as_bytes))
            }
        };
        scan.visit(source, &path, &metadata, options)?;
    }
    if !scan.unsupported.is_empty() && !options.skip_unsupported {
        return Err(CopyError::Unsupported(scan.unsupported));
    }
    Ok(scan)
}

/// Whether a source means what is in the directory rather than the directory: `DIR/.`
fn names_contents(source: &Path) -> bool {
    let bytes = source.as_os_str().as_bytes();
    bytes == b"." || bytes.ends_with(b"/.")
}

fn join(dir: Option<&[u8]>, name: Option<&[u8]>) -> Vec<u8> {
    [dir, name].into_iter().flatten().collect::<Vec<_>>().join(&b'/')
}

impl Scan {
    fn visit(
        &mut self,
        source: &Path,
        path: &[u8],
        metadata: &Metadata,
        options: &Options,
    ) -> Result<(), CopyError> {
        let kind = metadata.file_type();
        let reason = if kind.is_symlink() {
            Some("symbolic link")
        } else if kind.is_fifo()
            || kind.is_socket()
            || kind.is_char_device()
            || kind.is_block_device()
        {
            Some("special file")
        } else if kind.is_file() && metadata.len() == 0 {
            Some("empty file: famfs files have at least one byte")
        } else {
            None
        };
        // The root exists; its contents may be copied into it.
        let checked =
            if path.is_empty() && kind.is_dir() { None } else { Some(RelPath::new(path)) };
        match (reason, checked) {
            (Some(reason), _) => self.leave_out(source, reason.to_owned()),
            (None, Some(Err(err @ PathError::TooLong { .. }))) if kind.is_dir() => {
                // One line for the whole tree: everything in it is too long as well.
                self.leave_out(source, format!("{err}; its contents are left out too"));
                return Ok(());
            }
            (None, Some(Err(err))) => self.leave_out(source, err.to_string()),
            (None, checked) => {
                if let Some(Ok(path)) = checked {
                    let owner = Owner {
                        uid: options.uid.unwrap_or(metadata.uid()),
                        gid: options.gid.unwrap_or(metadata.gid()),
                        mode: match options.mode {
                            Some(mode) if kind.is_file() => mode,
                            _ => metadata.permissions().mode() & 0o7777,
                        },
                    };
                    let size = kind.is_file().then_some(metadata.len());
                    let id = (metadata.dev(), metadata.ino());
                    self.items.push(Item { source: source.to_owned(), path, owner, id, size });
                }
                if kind.is_dir() {
                    self.visit_children(source, path, options)?;
                }
            }
        }
        Ok(())
    }

    fn visit_children(
        &mut self,
        dir: &Path,
        path: &[u8],
        options: &Options,
    ) -> Result<(), CopyError> {
        let mut names = fs::read_dir(dir)
            .and_then(|entries| {
                entries.map(|e| e.map(|e| e.file_name())).collect::<io::Result<Vec<_>>>()
            })
            .map_err(|err| source_error("read", dir, err))?;
        names.sort_unstable();
        for name in names {
            let source = dir.join(&name);
            let metadata = fs::symlink_metadata(&source)
                .map_err(|err| source_error("look at", &source, err))?;
            let parent = (!path.is_empty()).then_some(path);
            self.visit(&source, &join(parent, Some(name.as_bytes())), &metadata, options)?;
        }
        Ok(())
    }

    fn leave_out(&mut self, source: &Path, reason: String) {
        self.unsupported.push(Unsupported { source: source.to_owned(), reason });
    }
}

fn source_error(action: &'static str, path: &Path, source: io::Error) -> CopyError {
    CopyError::Source { action, path: path.to_owned(), source }
}

/// What to do for one item.
enum Step {
    Mkdir(Item),
    Create(Item, u64, FileMap),
    /// A file of the same size is there: its bytes are replaced, as in the reference.
    Overwrite(Item, Node),
}

/// A copy that has room for all its files.
pub struct Copy {
    steps: Vec<Step>,
    /// Sum of the files' sizes.
    pub bytes: u64,
}

/// What a copy did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Files made.
    pub files: u64,
    /// Files whose bytes were replaced.
    pub overwritten: u64,
    /// Directories made.
    pub directories: u64,
    /// Bytes copied.
    pub bytes: u64,
}

impl Copy {
    /// Finds out what to make, and takes memory and log slots for it.
    pub fn prepare(scan: Scan, writer: &mut Writer<'_>) -> Result<Self, CopyError> {
        let (mut steps, mut taken, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        let (mut bytes, mut needed) = (0_u64, 0_u64);
        for item in scan.items {
            let existing = writer.plan().get(&item.path).cloned();
            let new = seen.insert(item.path.clone());
            let in_the_way = match (&existing, item.size) {
                _ if !new && item.size.is_some() => {
                    Some("another source has the same target".to_owned())
                }
                (Some(Node { kind: NodeKind::File { size, .. }, .. }), Some(wanted)) => (*size
                    != wanted)
                    .then(|| format!("\"{}\" exists with {size} bytes, not {wanted}", item.path)),
                (Some(Node { kind: NodeKind::File { .. }, .. }), None) => {
                    Some(format!("\"{}\" is a file, not a directory", item.path))
                }
                (Some(_), Some(_)) => Some(format!("\"{}\" is a directory", item.path)),
                _ => None,
            };
            if let Some(reason) = in_the_way {
                taken.push(Unsupported { source: item.source, reason });
                continue;
            }
            bytes = item.size.unwrap_or(0).saturating_add(bytes);
            match (existing, item.size) {
                (Some(node), Some(_)) => steps.push(Step::Overwrite(item, node)),
                (None, Some(size)) => {
                    let units = size.div_ceil(ALLOC_UNIT);
                    needed = needed.saturating_add(units.saturating_mul(ALLOC_UNIT));
                    let nowhere = FileMap::Simple(Vec::new());
                    steps.push(Step::Create(item, size, nowhere));
                }
                (None, None) if new => steps.push(Step::Mkdir(item)),
                (_, None) => {}
            }
        }
        if !taken.is_empty() {
            return Err(CopyError::Taken(taken));
        }
        let new = steps.iter().filter(|step| !matches!(step, Step::Overwrite(..))).count();
        writer.check_slots(new as u64)?;
        let free = writer.plan().space.free();
        if needed > free {
            return Err(CopyError::NoSpace { needed, free });
        }
        for step in &mut steps {
            if let Step::Create(item, size, map) = step {
                *map = writer.allocate(&item.path, *size)?;
            }
        }
        Ok(Self { steps, bytes })
    }

    /// Copies everything. `progress` is told the bytes of each step, and answers whether to go
    /// on. What was complete before an error stays.
    pub fn run(
        self,
        volume: &dyn Volume,
        writer: &mut Writer<'_>,
        mut progress: impl FnMut(u64) -> bool,
    ) -> Result<Done, CopyError> {
        let mut done = Done::default();
        let mut result = Ok(());
        let mut buf = vec![0; COPY_STEP];
        for step in self.steps {
            result = take_step(step, volume, writer, &mut done, &mut buf, &mut progress);
            if result.is_err() {
                break;
            }
        }
        writer.commit()?;
        volume.sync().map_err(CopyError::Sync)?;
        result.map(|()| done)
    }
}

fn take_step(
    step: Step,
    volume: &dyn Volume,
    writer: &mut Writer<'_>,
    done: &mut Done,
    buf: &mut [u8],
    progress: &mut impl FnMut(u64) -> bool,
) -> Result<(), CopyError> {
    match step {
        Step::Mkdir(item) => {
            writer.mkdir(&item.path, item.owner)?;
            done.directories += 1;
        }
        Step::Create(item, size, map) => {
            writer.create(&item.path, item.owner, size, map, |bytes| {
                fill(&item, size, bytes, buf, progress)
            })?;
            done.files += 1;
            done.bytes += size;
        }
        Step::Overwrite(item, node) => {
            let NodeKind::File { size, map } = &node.kind else { return Ok(()) };
            let target = |source| CopyError::Target { path: item.path.clone(), source };
            let bytes = volume.open_file(&item.path, *size, map, Access::Write).map_err(target)?;
            fill(&item, *size, &*bytes, buf, progress)?;
            bytes.finish().map_err(target)?;
            done.overwritten += 1;
            done.bytes += size;
        }
    }
    Ok(())
}

fn fill(
    item: &Item,
    size: u64,
    bytes: &dyn FileBytes,
    buf: &mut [u8],
    progress: &mut impl FnMut(u64) -> bool,
) -> Result<(), CopyError> {
    let read_error = |err| source_error("read", &item.source, err);
    let changed = || CopyError::Changed { path: item.source.clone(), size };
    // A pipe that has taken the file's place must not be waited for.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut file =
        OpenOptions::new().read(true).custom_flags(flags).open(&item.source).map_err(read_error)?;
    // Nor must a link lead to a file that was never looked at: the sources may be others' own.
    let metadata = file.metadata().map_err(read_error)?;
    if (metadata.dev(), metadata.ino()) != item.id {
        return Err(changed());
    }
    for (offset, len) in steps(size) {
        let buf = &mut buf[..len];
        file.read_exact(buf).map_err(|err| match err.kind() {
            io::ErrorKind::UnexpectedEof => changed(),
            _ => read_error(err),
        })?;
        bytes
            .write(offset, buf)
            .map_err(|source| CopyError::Target { path: item.path.clone(), source })?;
        if !progress(len as u64) {
            return Err(CopyError::Interrupted);
        }
    }
    Ok(())
}
