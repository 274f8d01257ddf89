// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who on this host wants to know that something was published in a pool: the keeper of each
//! virtual machine that has it.
//!
//! Each has a socket in `.wake/POOL` in the [runtime directory](super::runtime); POOL is the pool's
//! device and inode number in hexadecimal. The sockets are all there is: whoever publishes wakes
//! each, and removes those whose processes have ended. Other users cannot enter the directory, so
//! their commands wake nobody.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{AtFlags, CWD, Dir, FlockOperation, Mode, OFlags};
use rustix::fs::{flock, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use uuid::Uuid;

use crate::system::ownership;
use crate::system::runtime::runtime_dir;
use crate::system::wake::{WakeSocket, wake};

/// Directory of all pools. No cluster can have this name.
const DIR: &str = ".wake";
/// How many sockets to wake: more than this many virtual machines do not run on one host, and
/// nobody may keep a writer busy.
const MOST: usize = 1024;
/// How often to try to join while others remove the directory that has become empty.
const ATTEMPTS: usize = 16;

/// Which pool: it is the same for every name of the pool's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolId {
    device: u64,
    inode: u64,
}

impl PoolId {
    /// The pool that is this file or block device.
    pub fn of(metadata: &Metadata) -> Self {
        match metadata.file_type().is_block_device() {
            true => Self { device: metadata.rdev(), inode: 0 },
            false => Self { device: metadata.dev(), inode: metadata.ino() },
        }
    }
}

impl fmt::Display for PoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.device, self.inode)
    }
}

impl FromStr for PoolId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let parts = text.split_once('-');
        let id = parts.and_then(|(device, inode)| Some((number(device)?, number(inode)?)));
        let (device, inode) = id.ok_or_else(|| {
            format!("{text}: expected a device and an inode number in hexadecimal, as in 1a-2b3c")
        })?;
        Ok(Self { device, inode })
    }
}

/// Wakes all who want to know that something was published in the pool. Who cannot be woken finds
/// it at the next look.
pub fn wake_all(pool: PoolId) {
    if let Ok(base) = runtime_dir() {
        wake_all_in(&base, pool);
    }
}

/// The same, in another runtime directory.
pub fn wake_all_in(base: &Path, pool: PoolId) {
    if let Ok(Some(dir)) = open(base, pool) {
        wake_in(&dir, None);
    }
}

/// Removes the sockets of processes that have ended, of all pools.
pub fn sweep(base: &Path) {
    let Ok(Some(base)) = enter(CWD, base) else { return };
    let Ok(Some(all)) = enter(&base, Path::new(DIR)) else { return };
    for pool in names(&all) {
        if let Ok(Some(dir)) = enter(&all, &pool) {
            wake_in(&dir, None);
        }
        // Fails while others use it.
        let _ = unlinkat(&all, &pool, AtFlags::REMOVEDIR);
    }
    let _ = unlinkat(&base, DIR, AtFlags::REMOVEDIR);
}

/// A process that is woken, until it is dropped.
#[derive(Debug)]
pub struct Neighbour {
    socket: WakeSocket,
    name: String,
    base: File,
    all: File,
    dir: File,
    pool: PoolId,
}

impl Neighbour {
    /// Begins to be woken for a pool. `base` is the runtime directory.
    ///
    /// # Errors
    /// The runtime directory cannot be used.
    pub fn join(base: &Path, pool: PoolId) -> io::Result<Self> {
        let name = format!("{}.{}", std::process::id(), Uuid::new_v4().simple());
        for _ in 0..ATTEMPTS {
            make(CWD, base)?;
            let Some(base) = enter(CWD, base)? else { continue };
            make(&base, Path::new(DIR))?;
            let Some(all) = enter(&base, Path::new(DIR))? else { continue };
            let dir = PathBuf::from(pool.to_string());
            match make(&all, &dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                made => made?,
            }
            let Some(dir) = enter(&all, &dir)? else { continue };
            match WakeSocket::bind(&path(&dir, Path::new(&name))) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                socket => return Ok(Self { socket: socket?, name, base, all, dir, pool }),
            }
        }
        Err(io::Error::other("others keep removing the directory of the wake-up sockets"))
    }

    /// Wakes all others.
    pub fn wake_others(&self) {
        wake_in(&self.dir, Some(&self.name));
    }

    /// Reads the wake-ups that have arrived; returns whether there were any.
    pub fn take(&self) -> bool {
        self.socket.take()
    }
}

impl AsFd for Neighbour {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // What remains is removed by whoever tries to wake it. The directories stay if others use
        // them.
        let _ = unlinkat(&self.dir, self.name.as_str(), AtFlags::empty());
        let _ = unlinkat(&self.all, self.pool.to_string(), AtFlags::REMOVEDIR);
        let _ = unlinkat(&self.base, DIR, AtFlags::REMOVEDIR);
    }
}

/// The right to do what one neighbour does for all of a pool, until it is dropped.
#[derive(Debug)]
pub struct Lead {
    _dir: File,
}

impl Lead {
    /// Takes it, if nobody has it; only a [`Neighbour`] can. `base` is the runtime directory.
    ///
    /// # Errors
    /// The runtime directory cannot be used.
    pub fn take(base: &Path, pool: PoolId) -> io::Result<Option<Self>> {
        let Some(dir) = open(base, pool)? else { return Ok(None) };
        match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _dir: dir })),
            Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The directory of a pool's sockets, if there is one.
fn open(base: &Path, pool: PoolId) -> io::Result<Option<File>> {
    let Some(base) = enter(CWD, base)? else { return Ok(None) };
    let Some(all) = enter(&base, Path::new(DIR))? else { return Ok(None) };
    enter(&all, Path::new(&pool.to_string()))
}

fn wake_in(dir: &File, except: Option<&str>) {
    for name in names(dir) {
        if except.is_some_and(|except| Path::new(except) == name) {
            continue;
        }
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if wake(&path(dir, &name)).is_err_and(refused) {
            // No two sockets have one name, so nobody else's is removed.
            let _ = unlinkat(dir, &name, AtFlags::empty());
        }
    }
}

fn names(dir: &File) -> Vec<PathBuf> {
    let entries = Dir::read_from(dir).into_iter().flatten().map_while(Result::ok);
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name != "." && name != "..").take(MOST).map(PathBuf::from).collect()
}

/// The path of a name in an open directory, however long that one's own path is: sockets have
/// short paths.
fn path(dir: &File, name: &Path) -> PathBuf {
    Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name)
}

/// Makes a directory for this user only; it may exist.
fn make(at: impl AsFd, path: &Path) -> io::Result<()> {
    match mkdirat(at, path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a directory, if it exists; nobody else may put anything into it.
fn enter(at: impl AsFd, path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = match openat(at, path, flags, Mode::empty()) {
        Ok(dir) => File::from(dir),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    ownership::own_directory(&dir.metadata()?).map_err(io::Error::other)?;
    Ok(Some(dir))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    const POOL: PoolId = PoolId { device: 0x1a, inode: 0x2b3c };
    const OTHER: PoolId = PoolId { device: 0x1a, inode: 0x2b3d };

    #[test]
    fn a_pool_has_one_name() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "").unwrap();
        fs::hard_link(&file, &link).unwrap();
        let id = |path: &Path| PoolId::of(&path.metadata().unwrap());
        assert_eq!(id(&file), id(&link));
        assert_eq!(id(&file).to_string().parse(), Ok(id(&file)));
        assert_eq!(POOL.to_string(), "1a-2b3c");
        for wrong in ["", "1a", "1a-", "../x-1", "1a-2b3c-4"] {
            assert!(wrong.parse::<PoolId>().unwrap_err().contains("as in 1a-2b3c"), "{wrong}");
        }
    }

    #[test]
    fn all_of_a_pool_are_woken_and_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("run");
        wake_all_in(&base, POOL);
        let join = |pool| Neighbour::join(&base, pool).unwrap();
        let (one, two, other) = (join(POOL), join(POOL), join(OTHER));
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(base.clone()), mode(base.join(DIR))), (0o700, 0o700));
        wake_all_in(&base, POOL);
        assert_eq!([&one, &two, &other].map(Neighbour::take), [true, true, false]);
        one.wake_others();
        assert_eq!([&one, &two, &other].map(Neighbour::take), [false, true, false]);
        drop((one, two));
        assert!(!base.join(DIR).join(POOL.to_string()).exists());
        drop(other);
        assert_eq!(fs::read_dir(&base).unwrap().count(), 0, "nothing is left");
    }

    #[test]
    fn one_leads_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let lead = |pool| Lead::take(dir.path(), pool).unwrap();
        assert!(lead(POOL).is_none(), "no neighbour");
        let _neighbour = Neighbour::join(dir.path(), POOL).unwrap();
        let _other = Neighbour::join(dir.path(), OTHER).unwrap();
        let first = lead(POOL).unwrap();
        assert!(lead(POOL).is_none());
        lead(OTHER).unwrap();
        drop(first);
        lead(POOL).unwrap();
    }

    #[test]
    fn sockets_of_processes_that_have_ended_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let living = Neighbour::join(dir.path(), POOL).unwrap();
        let sockets = dir.path().join(DIR).join(POOL.to_string());
        let count = || fs::read_dir(&sockets).unwrap().count();
        let leave = || drop(UnixDatagram::bind(sockets.join("killed")).unwrap());
        leave();
        assert_eq!(count(), 2);
        wake_all_in(dir.path(), POOL);
        assert_eq!((count(), living.take()), (1, true));
        leave();
        living.wake_others();
        assert_eq!(count(), 1);
        leave();
        std::mem::forget(Neighbour::join(dir.path(), OTHER));
        sweep(dir.path());
        assert_eq!(count(), 1, "the living one stays");
        drop(living);
        fs::create_dir_all(&sockets).unwrap();
        leave();
        sweep(dir.path());
        assert!(!sockets.exists());
    }

    #[test]
    fn a_directory_that_others_can_change_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let one = Neighbour::join(dir.path(), POOL).unwrap();
        let chmod = |mode| {
            fs::set_permissions(dir.path().join(DIR), Permissions::from_mode(mode)).unwrap();
        };
        chmod(0o777);
        wake_all_in(dir.path(), POOL);
        assert!(!one.take());
        let error = Neighbour::join(dir.path(), POOL).unwrap_err().to_string();
        assert!(error.contains("so that others can change it"), "{error}");
        chmod(0o700);
        wake_all_in(dir.path(), POOL);
        assert!(one.take());
    }
}
