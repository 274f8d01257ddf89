// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which famfs is mounted where, from the kernel's mount table.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// The kernel's mount table of this process, proc_pid_mountinfo(5).
const MOUNTINFO: &str = "/proc/self/mountinfo";

/// A line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Device number of the file system: major and minor.
    pub device: (u32, u32),
    /// Which directory of the file system is mounted; "/" for all of it.
    pub root: PathBuf,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Type of the file system.
    pub fs_type: String,
    /// Device as given to mount.
    pub source: PathBuf,
    /// What the file system was mounted with, as in "rw,huge=always".
    pub options: String,
}

/// Why a path does not lead into a famfs.
#[derive(Debug, thiserror::Error)]
pub enum MountsError {
    /// The mount table could not be read.
    #[error("cannot read {MOUNTINFO}")]
    Table(#[source] io::Error),
    /// The path could not be resolved.
    #[error("cannot resolve {}", path.display())]
    Resolve {
        /// The path.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Another file system is there.
    #[error(
        "{} is on a {fs_type} file system at {}, expected a mounted famfs",
        path.display(), mount_point.display()
    )]
    NotFamfs {
        /// The path.
        path: PathBuf,
        /// What is mounted there.
        fs_type: String,
        /// Where that is mounted.
        mount_point: PathBuf,
    },
    /// No famfs is mounted.
    #[error(
        "no famfs is mounted here; mount one with `famfs mount` or name a pool with --pool FILE"
    )]
    None,
    /// It is unclear which one is meant.
    #[error("several famfs are mounted; name a path in one of them: {}", list(.0))]
    Several(Vec<PathBuf>),
    /// Only a part of the famfs is mounted, so that paths of the log do not fit.
    #[error("{} is a bind mount of directory {} of a famfs, expected the whole of it", mount_point.display(), root.display())]
    Partial {
        /// Where it is mounted.
        mount_point: PathBuf,
        /// The directory that is mounted.
        root: PathBuf,
    },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// The mount table as long as a famfs is in it.
#[derive(Debug)]
pub struct Presence {
    table: File,
    mount_point: PathBuf,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug)]
pub struct Waited {
    /// The file system is still in the table.
    pub mounted: bool,
    /// One of the other files can be read.
    pub woken: bool,
}

impl Presence {
    /// Of the famfs that is mounted on a directory, which is given without symbolic links.
    pub fn of(mount_point: &Path) -> Result<Self, MountsError> {
        let table = File::open(MOUNTINFO).map_err(MountsError::Table)?;
        Ok(Self { table, mount_point: mount_point.to_owned() })
    }

    /// Where it is mounted.
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// Waits, but not longer than until the table changes or a signal arrives; false if the file
    /// system is no longer in the table.
    pub fn wait(&self, pause: Duration) -> bool {
        self.wait_beside(&[], pause).mounted
    }

    /// The same, but not longer than until one of the other files can be read.
    pub fn wait_beside(&self, others: &[BorrowedFd<'_>], pause: Duration) -> Waited {
        let pause = Timespec::try_from(pause).unwrap_or_default();
        let mut fds = vec![PollFd::new(&self.table, PollFlags::PRI)];
        fds.extend(others.iter().map(|other| PollFd::new(other, PollFlags::IN)));
        let polled = poll(&mut fds, Some(&pause));
        let woken = polled.is_ok() && fds[1..].iter().any(|fd| !fd.revents().is_empty());
        let mounted = match polled {
            Ok(0) | Err(Errno::INTR) => true,
            Ok(_) if fds[0].revents().is_empty() => true,
            _ => on(&self.mount_point).is_ok_and(|mount| mount.is_some()),
        };
        Waited { mounted, woken }
    }
}

/// A path inside a mounted famfs.
#[derive(Clone, Debug)]
pub struct MountedPath {
    /// The mount.
    pub mount: MountEntry,
    /// The path relative to the mount point, possibly empty, as bytes not yet checked.
    pub inside: PathBuf,
}

/// Reads the mount table.
pub fn read() -> Result<Vec<MountEntry>, MountsError> {
    Ok(parse(&fs::read(MOUNTINFO).map_err(MountsError::Table)?))
}

/// The lines of a mount table.
pub fn parse(table: &[u8]) -> Vec<MountEntry> {
    table.split(|&b| b == b'\n').filter_map(parse_line).collect()
}

/// The mount that an existing path leads into. The path has no symbolic links.
pub fn around(path: &Path) -> Result<Option<MountEntry>, MountsError> {
    let above = read()?.into_iter().filter(|mount| path.starts_with(&mount.mount_point));
    // The last one of several mounts on one directory is the one that is seen.
    Ok(above.max_by_key(|mount| mount.mount_point.components().count()))
}

/// The famfs that is mounted on a directory, which is given without symbolic links.
pub fn on(mount_point: &Path) -> Result<Option<MountEntry>, MountsError> {
    let is_on = |mount: &MountEntry| mount.fs_type == "famfs" && mount.mount_point == mount_point;
    Ok(read()?.into_iter().find(is_on))
}

/// The mount point of the only famfs that is mounted here.
pub fn only() -> Result<PathBuf, MountsError> {
    only_of(read()?)
}

/// The only famfs of a table. Further mounts of its device show the same files.
fn only_of(table: Vec<MountEntry>) -> Result<PathBuf, MountsError> {
    let is_whole = |mount: &MountEntry| mount.fs_type == "famfs" && mount.root == Path::new("/");
    let mut found: Vec<MountEntry> = table.into_iter().filter(is_whole).collect();
    let mut seen = HashSet::new();
    found.retain(|mount| seen.insert(mount.source.clone()));
    let mut points: Vec<PathBuf> = found.into_iter().map(|mount| mount.mount_point).collect();
    match (points.pop(), points.is_empty()) {
        (Some(point), true) => Ok(point),
        (Some(point), false) => {
            points.push(point);
            Err(MountsError::Several(points))
        }
        (None, _) => Err(MountsError::None),
    }
}

/// The famfs of a device, by whatever name it was mounted. `device` has no symbolic links.
pub fn of(device: &Path) -> Result<Option<MountEntry>, MountsError> {
    let is_of = |mount: &MountEntry| {
        mount.fs_type == "famfs" && mount.source.canonicalize().is_ok_and(|path| path == device)
    };
    Ok(read()?.into_iter().find(is_of))
}

/// Finds the famfs that a path leads into. The path need not exist; the part that exists is
/// resolved, symbolic links included.
pub fn locate(path: &Path) -> Result<MountedPath, MountsError> {
    let (existing, rest) = resolve(path)?;
    let Some(mount) = around(&existing)? else {
        return Err(MountsError::Table(io::ErrorKind::InvalidData.into()));
    };
    if mount.fs_type != "famfs" {
        let MountEntry { fs_type, mount_point, .. } = mount;
        return Err(MountsError::NotFamfs { path: path.to_owned(), fs_type, mount_point });
    }
    if mount.root != Path::new("/") {
        let MountEntry { root, mount_point, .. } = mount;
        return Err(MountsError::Partial { mount_point, root });
    }
    let inside = existing.strip_prefix(&mount.mount_point).unwrap_or(Path::new("")).join(rest);
    Ok(MountedPath { mount, inside })
}

/// Splits a path into what exists, resolved, and the rest.
fn resolve(path: &Path) -> Result<(PathBuf, PathBuf), MountsError> {
    let error = |source| MountsError::Resolve { path: path.to_owned(), source };
    let absolute = std::path::absolute(path).map_err(error)?;
    for existing in absolute.ancestors() {
        match existing.canonicalize() {
            Ok(resolved) => {
                let rest = absolute.strip_prefix(existing).unwrap_or(Path::new(""));
                if rest.components().any(|part| part == Component::ParentDir) {
                    return Err(error(io::ErrorKind::NotFound.into()));
                }
                return Ok((resolved, rest.to_owned()));
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(error(err)),
        }
    }
    Err(error(io::ErrorKind::NotFound.into()))
}

/// Reads one line: fields up to a lone "-", then type, source and options.
fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let fields: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    Some(MountEntry {
        device: device_number(std::str::from_utf8(fields.get(2)?).ok()?)?,
        root: unescape(fields.get(3)?),
        mount_point: unescape(fields.get(4)?),
        fs_type: String::from_utf8_lossy(fields.get(dash + 1)?).into_owned(),
        source: unescape(fields.get(dash + 2)?),
        options: String::from_utf8_lossy(fields.get(dash + 3).unwrap_or(&&b""[..])).into_owned(),
    })
}

/// Reads a device number as the kernel writes it: "259:0".
pub fn device_number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Undoes the kernel's escapes: a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail
            .get(..3)
            .filter(|_| first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_famfs_is_found_without_a_path() {
        let entry = |source: &str, point: &str, fs_type: &str| MountEntry {
            device: (0, 1),
            root: "/".into(),
            mount_point: point.into(),
            fs_type: fs_type.to_owned(),
            source: source.into(),
            options: "rw".to_owned(),
        };
        let root = entry("/dev/root", "/", "erofs");
        let pool = entry("/dev/dax0.0", "/mnt/famfs", "famfs");
        let again = entry("/dev/dax0.0", "/mnt/bind", "famfs");
        let other = entry("/dev/dax1.0", "/mnt/other", "famfs");
        assert!(matches!(only_of(vec![root.clone()]), Err(MountsError::None)));
        for table in [vec![root, pool.clone()], vec![pool.clone(), again]] {
            assert_eq!(only_of(table).unwrap(), Path::new("/mnt/famfs"));
        }
        let both = only_of(vec![pool, other]).unwrap_err().to_string();
        assert!(both.ends_with(": /mnt/famfs, /mnt/other"), "{both}");
    }

    #[test]
    fn reads_escaped_lines_of_any_length() {
        let line = b"36 35 0:42 / /mnt/with\\040space rw,noatime shared:1 - famfs /dev/dax0.0 rw";
        let entry = parse_line(line).unwrap();
        assert_eq!(entry.mount_point, Path::new("/mnt/with space"));
        assert_eq!((entry.fs_type.as_str(), entry.source.to_str()), ("famfs", Some("/dev/dax0.0")));
        assert_eq!((entry.device, entry.options.as_str()), ((0, 42), "rw"));
        assert_eq!(parse_line(b"36 35 0:42 / /mnt"), None);
        assert_eq!(unescape(b"a\\b\\0"), Path::new("a\\b\\0"));
    }

    #[test]
    fn other_file_systems_are_named() {
        let error = locate(Path::new("/proc/self/status")).unwrap_err().to_string();
        assert!(error.contains("is on a proc file system"), "{error}");
        assert!(locate(Path::new("/proc/no/such/file")).is_err());
    }
}
