// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files that commands write for their users: `export -o`, `map -o` and the like.
//!
//! What has the name decides. A regular file, or nothing, is replaced by a complete file in one
//! step, after the user's own symbolic links are followed. A device, a pipe or a socket receives
//! the bytes and stays what it is. `-` is standard output.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use uuid::Uuid;

use crate::system::parent;

/// Highest number of symbolic links to follow, one after the other, as in the kernel.
const MAX_LINKS: usize = 40;
/// `f_type` of procfs: its links lead to open files, not to names (linux/magic.h).
const PROC_SUPER_MAGIC: i64 = 0x9fa0;
/// Mode of a new file, less the umask.
const NEW_FILE: u32 = 0o666;
/// Mode of an incomplete file that will replace another one.
const INCOMPLETE: u32 = 0o600;

/// A name that nobody can guess, for an incomplete file.
pub fn temporary_name() -> OsString {
    format!(".famfs-{}", Uuid::new_v4()).into()
}

/// Whether a path means standard output.
pub fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// A file that is being written. It has its name only after [`OutputFile::finish`].
#[derive(Debug)]
pub struct OutputFile(Kind);

#[derive(Debug)]
enum Kind {
    Stdout(io::Stdout),
    /// A device, a pipe, a socket.
    Straight(File),
    Replacement(Box<Replacement>),
}

/// A regular file that takes a name when it is complete.
#[derive(Debug)]
struct Replacement {
    file: File,
    dir: OwnedFd,
    temporary: OsString,
    name: OsString,
    /// The file that has the name now.
    old: Option<Metadata>,
    finished: bool,
}

impl OutputFile {
    /// Begins to write what a user named.
    ///
    /// # Errors
    /// It is a directory, may not be written, or is another user's link.
    pub fn create(path: &Path) -> io::Result<Self> {
        if is_stdout(path) {
            return Ok(Self(Kind::Stdout(io::stdout())));
        }
        let found = match fs::metadata(path) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => None,
            found => Some(found?),
        };
        let place = resolve(path)?;
        match found {
            Some(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Some(found) if !found.is_file() => straight(path, &found),
            // An open file, such as /dev/stdout, stays the same file for all that have it open.
            Some(found) if place.is_none() => straight(path, &found),
            old => replacement(&place.unwrap_or_else(|| path.to_owned()), old),
        }
    }

    /// Gives the complete file its name.
    ///
    /// # Errors
    /// The system refuses, or something else has taken the name meanwhile.
    pub fn finish(self) -> io::Result<()> {
        match self.0 {
            Kind::Stdout(mut stdout) => stdout.flush(),
            Kind::Straight(mut file) => file.flush(),
            Kind::Replacement(mut replacement) => {
                replacement.take_name()?;
                replacement.finished = true;
                Ok(())
            }
        }
    }
}

/// Writes a file whose whole text is known.
///
/// # Errors
/// As of [`OutputFile::create`] and [`OutputFile::finish`], or it cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OutputFile::create(path)?;
    file.write_all(bytes)?;
    file.finish()
}

impl Write for OutputFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Stdout(stdout) => stdout.write(buf),
            Kind::Straight(file) => file.write(buf),
            Kind::Replacement(replacement) => replacement.file.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Kind::Stdout(stdout) => stdout.flush(),
            Kind::Straight(file) => file.flush(),
            Kind::Replacement(replacement) => replacement.file.flush(),
        }
    }
}

/// The path after all links; `None` if one of them leads to an open file instead of a name.
fn resolve(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let link = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() => metadata,
            Ok(_) => return Ok(Some(path)),
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(Some(path)),
            Err(err) => return Err(err),
        };
        // In a directory that anybody may write to, somebody else's link is a trap.
        if link.uid() != 0 && link.uid() != rustix::process::geteuid().as_raw() {
            let text = format!("it is a symbolic link that belongs to user {}", link.uid());
            return Err(io::Error::other(text));
        }
        let dir = parent::of(&path).to_owned();
        if rustix::fs::statfs(&dir)?.f_type == PROC_SUPER_MAGIC {
            return Ok(None);
        }
        path = dir.join(fs::read_link(&path)?);
    }
    Err(Errno::LOOP.into())
}

/// Opens anything but a regular file, and an open file that was found through a link of /proc. A
/// pipe waits for its reader.
fn straight(path: &Path, found: &Metadata) -> io::Result<OutputFile> {
    let file = OpenOptions::new().write(true).open(path)?;
    let opened = file.metadata()?;
    if (opened.dev(), opened.ino()) != (found.dev(), found.ino()) {
        return Err(io::Error::other("it became another file while it was opened"));
    }
    Ok(OutputFile(Kind::Straight(file)))
}

fn replacement(path: &Path, old: Option<Metadata>) -> io::Result<OutputFile> {
    // `dir/` and `dir/.` name a directory, even one that does not exist.
    let name = path.file_name();
    let name = name.filter(|name| path.as_os_str().as_bytes().ends_with(name.as_bytes()));
    let name = name.ok_or_else(|| io::Error::other("it is not the name of a file"))?;
    if old.is_some() {
        // A user who may not write a file may not replace it either.
        OpenOptions::new().write(true).open(path)?;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(CWD, parent::of(path), flags, Mode::empty())?;
    let temporary = temporary_name();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = if old.is_some() { INCOMPLETE } else { NEW_FILE };
    let file = rustix::fs::openat(&dir, &temporary, flags, Mode::from_raw_mode(mode))?;
    let (file, name) = (File::from(file), name.to_owned());
    let replacement = Replacement { file, dir, temporary, name, old, finished: false };
    Ok(OutputFile(Kind::Replacement(Box::new(replacement))))
}

impl Replacement {
    fn take_name(&self) -> io::Result<()> {
        let Some(old) = &self.old else { return self.take_free_name() };
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let now = rustix::fs::statat(&self.dir, &self.name, flags)?;
        if (now.st_dev, now.st_ino) != (old.dev(), old.ino()) {
            return Err(io::Error::other("another file has taken its name meanwhile"));
        }
        // Only root may give files away. Other users become the owner of what they write.
        let _ = std::os::unix::fs::fchown(&self.file, Some(old.uid()), Some(old.gid()));
        self.file.set_permissions(Permissions::from_mode(old.mode() & 0o777))?;
        self.rename(RenameFlags::empty())
    }

    fn take_free_name(&self) -> io::Result<()> {
        match self.rename(RenameFlags::NOREPLACE) {
            // Some file systems have no such rename.
            Err(err) if Errno::from_io_error(&err) == Some(Errno::INVAL) => {
                self.rename(RenameFlags::empty())
            }
            result => result,
        }
    }

    fn rename(&self, flags: RenameFlags) -> io::Result<()> {
        let (from, to): (&OsStr, &OsStr) = (&self.temporary, &self.name);
        Ok(rustix::fs::renameat_with(&self.dir, from, &self.dir, to, flags)?)
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.finished {
            // The earlier error is the one to report.
            let _ = rustix::fs::unlinkat(&self.dir, &self.temporary, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, symlink};

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| name(entry).into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_regular_file_is_replaced_when_the_new_one_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        fs::write(&path, "old").unwrap();
        fs::write(dir.path().join("out.part"), "of the user").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let mut file = OutputFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        file.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        // A file that is given up leaves nothing.
        OutputFile::create(&path).unwrap().write_all(b"half").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["out", "out.part"]);
        assert_eq!(fs::read(dir.path().join("out.part")).unwrap(), b"of the user");
    }

    #[test]
    fn links_of_the_user_lead_to_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        symlink("real", &link).unwrap();
        for text in ["made through a link", "replaced through a link"] {
            write(&link, text.as_bytes()).unwrap();
            assert!(link.is_symlink() && fs::read_to_string(&real).unwrap() == text);
        }
        symlink("loop", dir.path().join("loop")).unwrap();
        assert!(write(&dir.path().join("loop"), b"").is_err());
        assert_eq!(names(dir.path()), ["link", "loop", "real"]);
    }

    #[test]
    fn a_link_of_another_user_is_not_followed() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not root: no link of another user can be made here");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (secret, link) = (dir.path().join("secret"), dir.path().join("link"));
        fs::write(&secret, "secret").unwrap();
        symlink(&secret, &link).unwrap();
        std::os::unix::fs::lchown(&link, Some(65534), Some(65534)).unwrap();
        let error = write(&link, b"").unwrap_err().to_string();
        assert!(error.contains("belongs to user 65534"), "{error}");
        assert_eq!(fs::read(&secret).unwrap(), b"secret");
    }

    #[test]
    fn what_is_no_file_stays_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let read = std::thread::scope(|scope| {
            let reader = scope.spawn(|| fs::read(&pipe).unwrap());
            write(&pipe, b"through a pipe").unwrap();
            reader.join().unwrap()
        });
        assert_eq!(read, b"through a pipe");
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
        for name in ["new/", "new/."] {
            let error = write(&dir.path().join(name), b"").unwrap_err().to_string();
            assert_eq!(error, "it is not the name of a file", "{name}");
        }
        let error = write(dir.path(), b"").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
        assert_eq!(names(dir.path()), ["pipe"]);
    }

    /// As `> >(cat)` and `-o /dev/stdout` of a shell.
    #[test]
    fn an_open_file_keeps_its_identity() {
        use std::os::fd::AsRawFd;
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("open")).unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        write(Path::new(&path), b"text").unwrap();
        assert_eq!(fs::read(dir.path().join("open")).unwrap(), b"text");
        assert_eq!(file.metadata().unwrap().len(), 4, "the same file");
    }

    #[test]
    fn a_name_that_is_taken_meanwhile_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let file = OutputFile::create(&path).unwrap();
        fs::write(&path, "somebody's").unwrap();
        assert!(file.finish().is_err());
        assert_eq!(fs::read(&path).unwrap(), b"somebody's");
        let file = OutputFile::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "again").unwrap();
        // The number of the old file may be given to the new one at once.
        let _ = file.finish();
        assert_eq!(names(dir.path()), ["out"]);
    }
}
