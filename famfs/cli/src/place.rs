// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The meaning of a path on the command line: a path in a pool file, or in a mounted famfs.

use std::cell::OnceCell;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result, anyhow, bail};
use famfs::format::path::{PathError, RelPath};
use famfs::kernel::mount::Mounted;
use famfs::kernel::play::play;
use famfs::kernel::player::Task;
use famfs::kernel::volume::MountedVolume;
use famfs::media::PoolFile;
use famfs::replay::tree::Tree;
use famfs::replay::tree::list::Entry;
use famfs::replay::tree::object::{FileBytes, Object, ObjectKind};
use famfs::replay::tree::resolve::LastLink;
use famfs::replay::{Contents, Owner, Plan};
use famfs::store::alloc::Striping;
use famfs::store::identity::{Identity, RunningSystem};
use famfs::store::lease::{Keeper, Timing};
use famfs::store::role::{self, Role};
use famfs::store::superblock::Superblock;
use famfs::sys::dax::Access;
use famfs::system::mounts::{self, MountedPath, MountsError};
use famfs::system::parent;
use famfs::text::error_report::one_line;
use famfs::write::reading::Reading;
use famfs::write::volume::{OfflineVolume, Volume};
use famfs::write::writer::{WriteError, Writer};
use famfs_cli::args::InterleaveArgs;
use uuid::Uuid;

use crate::output::notice;
use crate::reclaiming::{Look, Patience, Slots};

/// A file system and a path in it.
pub struct Place {
    /// The file system.
    pub volume: Rc<dyn Volume>,
    /// The same, if it is mounted.
    mounted: Option<Rc<MountedVolume>>,
    /// The path; `None` is the root. In a pool file it may lead through symbolic links: see
    /// [`Place::resolve`].
    pub path: Option<RelPath>,
    /// Whether the path ends as one of a directory does, so that a link at its end counts as what
    /// it leads to.
    is_dir: bool,
    /// The pool file, if it is one.
    pool: Option<PathBuf>,
    /// The pool file or device.
    memory: Option<Metadata>,
    /// This system's UUID; `None` with a pool file, whose host may always write.
    system: Option<Uuid>,
    /// The master's lease, if this process writes.
    lease: OnceCell<Keeper>,
}

impl Place {
    /// Finds the file system of a path. Without a path it is the pool, or the only famfs that is
    /// mounted here.
    pub fn open(pool: Option<&Path>, path: Option<&Path>, access: Access) -> Result<Self> {
        match pool {
            Some(pool) => {
                let path = path.unwrap_or(Path::new(""));
                let (path, is_dir) = (pool_path(path)?, names_dir(path));
                let file = match access {
                    Access::Read => PoolFile::open(pool, access)?,
                    Access::Write => PoolFile::open_beside_others(pool, |text| notice!("{text}"))?,
                };
                Ok(Self::offline(pool, file, path, is_dir))
            }
            None => match path {
                Some(path) => Self::mounted(path, access, LastLink::Follow),
                None => Self::mounted(&mounts::only()?, access, LastLink::Follow),
            },
        }
    }

    /// The root of a pool file that nobody else may have, for commands that change what others
    /// rely on.
    pub fn open_alone(pool: &Path, access: Access) -> Result<Self> {
        let file = match access {
            Access::Read => PoolFile::open(pool, access)?,
            Access::Write => PoolFile::open_alone(pool, |text| notice!("{text}"))?,
        };
        Ok(Self::offline(pool, file, None, false))
    }

    fn offline(pool: &Path, file: PoolFile, path: Option<RelPath>, is_dir: bool) -> Self {
        let volume = Rc::new(OfflineVolume::new(file));
        let memory = pool.metadata().ok();
        let (pool, lease) = (Some(pool.to_owned()), OnceCell::new());
        Self { volume, mounted: None, path, is_dir, pool, memory, system: None, lease }
    }

    /// The same for a path that may be that of a symbolic link.
    pub fn open_link(pool: Option<&Path>, path: Option<&Path>, access: Access) -> Result<Self> {
        match (pool, path) {
            (None, Some(path)) => Self::mounted(path, access, LastLink::Keep),
            _ => Self::open(pool, path, access),
        }
    }

    fn mounted(path: &Path, access: Access, last: LastLink) -> Result<Self> {
        let is_dir = names_dir(path);
        let found = match last {
            LastLink::Keep if !is_dir => locate_link(path)?,
            _ => locate(path)?,
        };
        let path = mounted_path(&found)?;
        let system = match access {
            // Master and client read in the same way.
            Access::Read => None,
            Access::Write => Some(role::system_uuid()?),
        };
        let mounted = Mounted::at(&found.mount.mount_point, &found.mount.source)?
            .telling(|text| notice!("{text}"));
        if access == Access::Write && mounted.is_read_only()? {
            bail!(
                "{} is mounted read-only, so this system can read the famfs but not change it: run \
                 the command on the master",
                found.mount.mount_point.display()
            );
        }
        let volume = Rc::new(mounted.open(access, system)?);
        let mounted = Some(Rc::clone(&volume));
        let memory = Path::new(&found.mount.source).metadata().ok();
        let lease = OnceCell::new();
        Ok(Self { volume, mounted, path, is_dir, pool: None, memory, system, lease })
    }

    /// Opens the file system for additions; with `dry_run`, for a session that changes nothing.
    pub fn writer(&self, dry_run: bool) -> Result<Writer<'_>> {
        if dry_run {
            self.catch_up()?;
            return Ok(Writer::preview(&*self.volume, self.system)?);
        }
        // Before the log is read, so that nobody adds to it afterwards.
        let lease = self.lease()?;
        self.catch_up()?;
        let mut writer = Writer::open(&*self.volume, self.system)?;
        if self.pool.is_some() && (writer.deleted() > 0 || writer.is_short_of_slots()) {
            drop(writer);
            self.reclaim_at_once(Slots::IfWorth);
            writer = Writer::open(&*self.volume, self.system)?;
        }
        Ok(match lease {
            Some(lease) => writer.guarded_by(lease),
            None => writer,
        })
    }

    /// Gives back the memory of removed files of a pool file, as far as that is possible at once,
    /// and their log slots if that is wanted; how many bytes it was. What is in the way does not
    /// matter to the caller: `famfs reclaim` tells it.
    pub fn reclaim_at_once(&self, slots: Slots) -> u64 {
        let Some(pool) = &self.pool else { return 0 };
        let given = self.lease().and_then(|lease| {
            let media = self.volume.media();
            match Look::new(media, pool, Patience::None, slots)? {
                Some(look) => Ok(look.give_back(media, pool, lease)?.memory.bytes),
                None => Ok(0),
            }
        });
        given.unwrap_or(0)
    }

    /// Makes a mount show all that others have published, before it shows what is new.
    fn catch_up(&self) -> Result<()> {
        let Some(volume) = &self.mounted else { return Ok(()) };
        let played = play(volume, Task::default(), |_| {})?;
        for error in &played.applied.errors {
            notice!("{}", one_line(error));
        }
        Ok(())
    }

    /// The master's lease, acquired at the first call; `None` on a client.
    pub fn lease(&self) -> Result<Option<&Keeper>> {
        if let Some(lease) = self.lease.get() {
            return Ok(Some(lease));
        }
        let superblock = Superblock::read(self.volume.media())?;
        if self.system.is_some_and(|system| Role::of(&superblock, system) == Role::Client) {
            return Ok(None);
        }
        let identity = Identity::this(self.system.unwrap_or_default())?;
        let me = identity.system();
        let media = self.volume.lease_media()?;
        let timing = Timing::default();
        let waiting = |holder: &RunningSystem| match me.is_host() || holder.is_host() {
            true => notice!(
                "waiting up to {} s for {holder}, which is writing, or has just ended",
                timing.patience.as_secs()
            ),
            false => notice!(
                "waiting up to {} seconds to see whether the last master is alive: {holder}",
                timing.expiry.as_secs()
            ),
        };
        let taken = Keeper::acquire(media, superblock.fs_uuid, identity, false, timing, waiting)?;
        Ok(Some(self.lease.get_or_init(|| taken)))
    }

    /// The same, for a command that only the master may run.
    pub fn masters_lease(&self) -> Result<&Keeper> {
        match self.lease()? {
            Some(lease) => Ok(lease),
            None => {
                let system = self.system.unwrap_or_default();
                let master = Superblock::read(self.volume.media())?.system_uuid;
                Err(WriteError::Client { system, master }.into())
            }
        }
    }

    /// Refuses to write an output file over the file system that it is made from.
    pub fn check_output(&self, path: &Path) -> Result<()> {
        match path.metadata() {
            Ok(found) => self.check_existing(&found, path),
            Err(_) => Ok(()),
        }
    }

    /// The same for what is found at a path.
    pub fn check_existing(&self, found: &Metadata, path: &Path) -> Result<()> {
        if self.memory.as_ref().is_some_and(|memory| is_same(found, memory)) {
            bail!(
                "{} holds the file system that is being read, and would be overwritten: name another \
                 file",
                path.display()
            );
        }
        Ok(())
    }

    /// Reads the log.
    pub fn plan(&self) -> Result<Plan> {
        Ok(Contents::read(self.volume.media())?.plan)
    }

    /// The path in a tree, after the symbolic links that lead to it; `None` is the root.
    pub fn resolve(&self, plan: &Plan, last: LastLink) -> Result<Option<RelPath>> {
        let last = if self.is_dir { LastLink::Follow } else { last };
        let Some(path) = &self.path else { return Ok(None) };
        let path = plan.tree().resolve(path, last)?;
        if self.is_dir {
            check_dir(plan.tree(), path.as_ref())?;
        }
        Ok(path)
    }

    /// What is at the path, and everything below it.
    pub fn entries<'p>(&self, plan: &'p Plan, last: LastLink) -> Result<Vec<Entry<'p>>> {
        let path = self.resolve(plan, last)?;
        let entries = plan.tree().at_and_below(path.as_ref());
        match path {
            Some(path) if entries.is_empty() => bail!("\"{path}\" does not exist"),
            _ => Ok(entries),
        }
    }

    /// The file at the path, symbolic links followed.
    pub fn file<'p>(&self, plan: &'p Plan) -> Result<FileOf<'p>> {
        let Some(path) = self.resolve(plan, LastLink::Follow)? else {
            bail!("the path names the root of the file system, expected a file")
        };
        FileOf::new(plan.tree(), path)
    }

    /// The path, which must not be the root.
    pub fn file_path(&self) -> Result<&RelPath> {
        self.path.as_ref().context("the path names the root of the file system, expected a file")
    }
}

/// A file of a log.
pub struct FileOf<'p> {
    /// Its path.
    pub path: RelPath,
    /// Its size in bytes.
    pub size: u64,
    tree: &'p Tree,
    bytes: &'p FileBytes,
}

impl<'p> FileOf<'p> {
    /// What is at a path, which must be a file.
    pub fn new(tree: &'p Tree, path: RelPath) -> Result<Self> {
        match tree.get(&path).map(|listed| listed.object) {
            Some(Object { kind: ObjectKind::File { size, bytes }, .. }) => {
                Ok(Self { path, size: *size, tree, bytes })
            }
            Some(object) => bail!("\"{path}\" is a {}, expected a file", object.kind_name()),
            None => bail!("\"{path}\" does not exist"),
        }
    }

    /// Opens it for reading.
    pub fn open<'v>(&self, volume: &'v dyn Volume) -> Result<Reading<'v>> {
        let memory = self.tree.memory(self.bytes, self.size);
        Reading::open(volume, &self.path, self.size, &memory)
            .with_context(|| format!("cannot open \"{}\"", self.path))
    }
}

/// Whether two names lead to the same file, or to the same device.
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    let device = |metadata: &Metadata| {
        let kind = metadata.file_type();
        (kind.is_block_device() || kind.is_char_device()).then(|| (kind, metadata.rdev()))
    };
    match (device(one), device(other)) {
        (None, None) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        (one, other) => one == other,
    }
}

/// The mounted famfs that a path leads into, for commands that could also take a pool file.
pub fn locate(path: &Path) -> Result<MountedPath> {
    mounts::locate(path).map_err(|error| match error {
        MountsError::NotFamfs { .. } => anyhow!("{error}; for a pool file, use --pool FILE"),
        error => error.into(),
    })
}

/// The same for a path that may be that of a symbolic link in the famfs.
pub fn locate_link(path: &Path) -> Result<MountedPath> {
    if let (true, Some(name)) = (path.is_symlink(), path.file_name())
        && let Ok(mut found) = mounts::locate(parent::of(path))
    {
        found.inside.push(name);
        return Ok(found);
    }
    locate(path)
}

/// The path in a mounted famfs; `None` is its root.
pub fn mounted_path(found: &MountedPath) -> Result<Option<RelPath>> {
    inside(found.inside.as_os_str().as_bytes())
}

/// Whether a path ends as only one of a directory does.
pub fn names_dir(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    bytes.ends_with(b"/") || bytes.ends_with(b"/.")
}

/// Refuses what is no directory at a path that ends as one of a directory does. What does not exist
/// may be made there.
pub fn check_dir(tree: &Tree, path: Option<&RelPath>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    match tree.get(path).map(|listed| listed.object) {
        None | Some(Object { kind: ObjectKind::Dir { .. }, .. }) => Ok(()),
        Some(object) => bail!(
            "\"{path}\" is a {}, expected a directory: leave out what follows its name",
            object.kind_name()
        ),
    }
}

/// A path in a pool file. A leading slash is allowed: the pool is the root.
pub fn pool_path(path: &Path) -> Result<Option<RelPath>> {
    inside(without_slash(path.as_os_str().as_bytes()))
}

/// A path below the root; an empty path, `.` and the like are the root itself.
fn inside(bytes: &[u8]) -> Result<Option<RelPath>> {
    match RelPath::new(bytes) {
        Ok(path) => Ok(Some(path)),
        Err(PathError::Empty(_)) => Ok(None),
        Err(err) => Err(err.into()),
    }
}

fn without_slash(path: &[u8]) -> &[u8] {
    let start = path.iter().position(|&b| b != b'/').unwrap_or(path.len());
    &path[start..]
}

/// The owner of a new file or directory: as requested, else the caller.
pub fn owner(uid: Option<u32>, gid: Option<u32>, mode: u32) -> Owner {
    Owner {
        uid: uid.unwrap_or_else(|| rustix::process::geteuid().as_raw()),
        gid: gid.unwrap_or_else(|| rustix::process::getegid().as_raw()),
        mode,
    }
}

/// Permission bits as requested, less the caller's umask, as the reference does for files.
pub fn masked(mode: u32) -> u32 {
    use rustix::fs::Mode;
    let mask = rustix::process::umask(Mode::empty());
    rustix::process::umask(mask);
    mode & !mask.as_raw_mode()
}

/// Arguments as paths of one file system, none of which is its root.
pub fn paths_of_one(pool: Option<&Path>, args: &[&Path]) -> Result<Vec<RelPath>> {
    let mut mount_point = None;
    let mut paths = Vec::new();
    for path in args {
        let found = match pool {
            Some(_) => pool_path(path)?,
            None => {
                let found = locate(path)?;
                let at = found.mount.mount_point;
                let first = mount_point.get_or_insert_with(|| at.clone());
                if *first != at {
                    let (first, at) = (first.display(), at.display());
                    bail!("{} is on {at}, expected all paths to be on {first}", path.display());
                }
                inside(found.inside.as_os_str().as_bytes())?
            }
        };
        let root = || format!("{} is the root of the file system", path.display());
        paths.push(found.with_context(root)?);
    }
    Ok(paths)
}

/// How to interleave files, if at all.
pub fn striping(args: &InterleaveArgs) -> Result<Option<Striping>> {
    let InterleaveArgs { nbuckets, nstrips, chunksize } = *args;
    match (nbuckets, nstrips, chunksize) {
        (0, 0, 0) => Ok(None),
        (1.., 1.., 1..) => {
            Ok(Some(Striping { buckets: nbuckets, strips: nstrips.into(), chunk_size: chunksize }))
        }
        _ => bail!(
            "{nbuckets} buckets, {nstrips} strips, chunks of {chunksize} bytes: expected all three \
             of -B, -N and -C, or none"
        ),
    }
}
