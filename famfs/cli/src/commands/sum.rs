// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs sum`

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use famfs::format::path::{META_DIR, RelPath};
use famfs::kernel::mapped::MappedFile;
use famfs::replay::Plan;
use famfs::replay::tree::object::ObjectKind;
use famfs::replay::tree::resolve::LastLink;
use famfs::sys::dax::Access;
use famfs::sys::ioctl;
use famfs::system::faults::{FaultCounter, Faults};
use famfs::system::mounts;
use famfs::text::json_name::Name;
use famfs::text::terminal::escape_name;
use famfs::write::volume::{COPY_STEP, FileBytes, steps};
use famfs_cli::args::Sum;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::output::{FAILED, INTERRUPTED, OK, Outcome, human, print_json, say, stop_flag};
use crate::output::{list_to_stdout, notice, stopped};
use crate::place::{FileOf, Place};

mod manifest;

use manifest::{Kind, Line};

#[derive(Serialize)]
struct SumReport {
    version: u32,
    files: Vec<Item>,
    bytes: u64,
    seconds: f64,
    failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    faults: Option<Faults>,
}

#[derive(Serialize)]
struct Item {
    #[serde(flatten)]
    path: Name,
    /// "symlink", whose size and sum are those of its target's text; left out of files.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    size: u64,
    sha256: String,
    /// With --check: whether the sum matches the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<bool>,
    /// Why the file could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub fn run(pool: Option<&Path>, args: &Sum) -> Outcome {
    let stop = stop_flag()?;
    let source = Source::open(pool, args)?;
    let lines = match &args.check {
        Some(list) => read_list(list)?,
        None => source.lines()?,
    };
    let counter = match (args.faults, &source) {
        (true, Source::Disk { root, .. }) => Some(FaultCounter::start(root)?),
        _ => None,
    };
    let start = Instant::now();
    let mut report = SumReport {
        version: 1,
        files: Vec::new(),
        bytes: 0,
        seconds: 0.0,
        failed: 0,
        faults: None,
    };
    for line in &lines {
        let item = check(&source, line, &stop);
        if stopped(&stop) {
            return Ok(INTERRUPTED);
        }
        report.bytes += item.size;
        report.failed += u64::from(item.ok == Some(false) || item.error.is_some());
        if !args.json {
            print_item(line, &item)?;
        }
        report.files.push(item);
    }
    report.seconds = start.elapsed().as_secs_f64();
    report.faults = counter.map(|counter| counter.faults()).transpose()?;
    let code = if report.failed == 0 { OK } else { FAILED };
    if args.json {
        print_json(&report)?;
    } else {
        summarize(args, &report)?;
    }
    Ok(code)
}

fn read_list(list: &Path) -> Result<Vec<Line>> {
    let mut bytes = Vec::new();
    let read = match list.as_os_str() == "-" {
        true => io::stdin().read_to_end(&mut bytes),
        false => File::open(list).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    read.with_context(|| format!("cannot read {}", list.display()))?;
    manifest::parse(&bytes).with_context(|| list.display().to_string())
}

/// Sums one file and compares the sum with its line.
fn check(source: &Source, line: &Line, stop: &AtomicBool) -> Item {
    let path = Name::new("path", &line.name);
    let kind = (line.kind == Kind::Symlink).then_some("symlink");
    match source.sum(line, stop) {
        Ok((size, sha256)) => {
            let ok = line.sha256.as_ref().map(|expected| *expected == sha256);
            Item { path, kind, size, sha256, ok, error: None }
        }
        Err(err) => {
            let ok = line.sha256.as_ref().map(|_| false);
            Item { path, kind, size: 0, sha256: String::new(), ok, error: Some(format!("{err:#}")) }
        }
    }
}

fn print_item(line: &Line, item: &Item) -> Result<()> {
    let name = escape_name(&line.name);
    match (item.ok, &item.error) {
        (_, Some(error)) => notice!("{name}: {error}"),
        (Some(false), None) => say!("{name}: FAILED")?,
        (Some(true), None) => {}
        // For sha256sum, byte for byte.
        (None, None) => list_to_stdout(&manifest::format(line.kind, &item.sha256, &line.name))?,
    }
    Ok(())
}

fn summarize(args: &Sum, report: &SumReport) -> Result<()> {
    if args.check.is_some() {
        let SumReport { files, bytes, failed, .. } = report;
        let ok = files.len() as u64 - failed;
        say!("{ok} files OK, {failed} failed, {}", human(*bytes))?;
    }
    if let Some(Faults { pmd, pte }) = &report.faults {
        // Not on standard output, where the list of sums may be.
        notice!("faults of 2 MiB: {pmd:?}, of 4 KiB: {pte:?}");
    }
    Ok(())
}

/// Where the files are.
enum Source {
    /// A pool file with its log, and the file or directory in it; `None` is the root.
    Pool { place: Box<Place>, plan: Box<Plan>, path: Option<RelPath> },
    /// A file or directory that the kernel shows.
    Disk { root: PathBuf, skip_meta: bool },
}

impl Source {
    fn open(pool: Option<&Path>, args: &Sum) -> Result<Self> {
        if pool.is_some() {
            if args.faults {
                bail!("--faults counts the kernel's page faults: it cannot be used with --pool");
            }
            let place = Place::open(pool, args.path.as_deref(), Access::Read)?;
            let plan = place.plan()?;
            if super::warn_of_damage(&plan) {
                bail!("the pool is damaged: see `famfs fsck`");
            }
            let path = place.resolve(&plan, LastLink::Follow)?;
            if let Some(path) = &path
                && plan.tree().get(path).is_none()
            {
                bail!("\"{path}\" does not exist");
            }
            return Ok(Self::Pool { place: Box::new(place), plan: Box::new(plan), path });
        }
        let root = match &args.path {
            Some(path) => path.clone(),
            None => mounts::only()?,
        };
        let skip_meta = mounts::locate(&root).is_ok_and(|m| m.inside.as_os_str().is_empty());
        Ok(Self::Disk { root, skip_meta })
    }

    /// Names of all regular files and symbolic links, relative to the root, in order.
    fn lines(&self) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        match self {
            Self::Pool { plan, path, .. } => {
                for entry in plan.tree().at_and_below(path.as_ref()) {
                    let name = name_below(&entry.path, path.as_ref());
                    match &entry.listed.object.kind {
                        ObjectKind::Dir { .. } => {}
                        ObjectKind::File { .. } => lines.push(Line::of_name(Kind::File, name)),
                        ObjectKind::Symlink { .. } => {
                            lines.push(Line::of_name(Kind::Symlink, name));
                        }
                    }
                }
            }
            Self::Disk { root, skip_meta } => {
                let metadata = fs::metadata(root)
                    .with_context(|| format!("cannot examine {}", root.display()))?;
                match metadata.is_dir() {
                    true => walk(root, Path::new(""), *skip_meta, &mut lines)?,
                    false => lines.extend(
                        root.file_name()
                            .map(|name| Line::of_name(Kind::File, name.as_bytes().to_vec())),
                    ),
                }
            }
        }
        lines.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(lines)
    }

    /// Size and sum of a file, or of the target of a symbolic link.
    fn sum(&self, line: &Line, stop: &AtomicBool) -> Result<(u64, String)> {
        match self {
            Self::Pool { place, plan, path } => {
                let path = pool_path(&line.name, plan, path.as_ref())?;
                if line.kind == Kind::Symlink {
                    return match plan.tree().get(&path).map(|listed| &listed.object.kind) {
                        Some(ObjectKind::Symlink { target, .. }) => Ok(sum_of(target)),
                        _ => bail!("no such symbolic link in the pool"),
                    };
                }
                // As on a disk, a list may name a file through links.
                let file = match plan.tree().resolve(&path, LastLink::Follow)? {
                    Some(path) => FileOf::new(plan.tree(), path)?,
                    None => bail!("it is the root of the pool"),
                };
                let bytes = file.open(&*place.volume)?;
                hash(|offset, buf| bytes.read(offset, buf), file.size, stop)
            }
            Self::Disk { root, .. } => {
                let name = PathBuf::from(std::ffi::OsString::from_vec(line.name.clone()));
                let path = if root.is_dir() { root.join(name) } else { root.clone() };
                if line.kind == Kind::Symlink {
                    return Ok(sum_of(fs::read_link(path)?.as_os_str().as_bytes()));
                }
                let file = File::open(path)?;
                let size = file.metadata()?.len();
                if size == 0 {
                    return Ok(sum_of(b""));
                }
                // A file of famfs keeps its length. A file of another file system may be truncated:
                // read(2) then fails, but a process that has it mapped is killed.
                match ioctl::nop(&file) {
                    Ok(()) => {
                        let mapped = MappedFile::new(&file, size, Access::Read)?;
                        hash(|offset, buf| mapped.read(offset, buf), size, stop)
                    }
                    Err(_) => hash(|offset, buf| read_plain(&file, offset, buf), size, stop),
                }
            }
        }
    }
}

/// A file's name relative to the directory (or the file itself) on the command line.
fn name_below(path: &RelPath, root: Option<&RelPath>) -> Vec<u8> {
    let below = root.map_or(0, |root| root.as_bytes().len() + 1);
    path.as_bytes().get(below..).unwrap_or(path.name()).to_vec()
}

/// The inverse of [`name_below`].
fn pool_path(name: &[u8], plan: &Plan, root: Option<&RelPath>) -> Result<RelPath> {
    let Some(root) = root else { return Ok(RelPath::new(name)?) };
    match plan.tree().get(root).map(|listed| &listed.object.kind) {
        Some(ObjectKind::Dir { .. }) => Ok(RelPath::new(&[root.as_bytes(), b"/", name].concat())?),
        _ => Ok(root.clone()),
    }
}

fn walk(root: &Path, below: &Path, skip_meta: bool, lines: &mut Vec<Line>) -> Result<()> {
    let dir = root.join(below);
    let error = || format!("cannot read {}", dir.display());
    for entry in fs::read_dir(&dir).with_context(error)? {
        let entry = entry.with_context(error)?;
        let kind = entry.file_type().with_context(error)?;
        let name = below.join(entry.file_name());
        if skip_meta && name == Path::new(META_DIR) {
            continue;
        }
        if kind.is_dir() {
            walk(root, &name, skip_meta, lines)?;
        } else if kind.is_file() {
            lines.push(Line::of_name(Kind::File, name.into_os_string().into_vec()));
        } else if kind.is_symlink() {
            lines.push(Line::of_name(Kind::Symlink, name.into_os_string().into_vec()));
        }
    }
    Ok(())
}

/// Reads a file that may be truncated meanwhile.
fn read_plain(file: &File, offset: u64, buf: &mut [u8]) -> io::Result<()> {
    file.read_exact_at(buf, offset).map_err(|err| match err.kind() {
        io::ErrorKind::UnexpectedEof => {
            let text = format!("became shorter while it was read, at offset {offset}");
            io::Error::new(err.kind(), text)
        }
        _ => err,
    })
}

fn hash(
    read: impl Fn(u64, &mut [u8]) -> io::Result<()>,
    size: u64,
    stop: &AtomicBool,
) -> Result<(u64, String)> {
    let mut hash = Sha256::new();
    let mut buf = vec![0; COPY_STEP];
    for (offset, len) in steps(size) {
        if stopped(stop) {
            bail!("interrupted");
        }
        read(offset, &mut buf[..len])?;
        hash.update(&buf[..len]);
    }
    Ok((size, hex(&hash.finalize())))
}

fn sum_of(bytes: &[u8]) -> (u64, String) {
    (bytes.len() as u64, hex(&Sha256::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mapping would end the program with SIGBUS.
    #[test]
    fn a_file_that_becomes_shorter_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let stop = AtomicBool::new(false);
        let error = hash(|offset, buf| read_plain(&file, offset, buf), 3 << 20, &stop);
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "became shorter while it was read, at offset 0");
    }
}
