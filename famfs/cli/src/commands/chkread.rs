// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs chkread`

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use famfs::format::{self, LOG_OFFSET};
use famfs::kernel::mapped::MappedFile;
use famfs::media::{Media, MediaError};
use famfs::store::log::Log;
use famfs::store::superblock::Superblock;
use famfs::sys::dax::Access;
use famfs::write::volume::{COPY_STEP, FileBytes, steps};
use famfs_cli::args::Chkread;

use serde::Serialize;

use crate::output::{FAILED, OK, Outcome, notice, print_json, say};

#[derive(Serialize)]
struct ChkreadReport {
    version: u32,
    path: String,
    bytes: u64,
    /// Offset of the first byte that differs.
    difference: Option<u64>,
}

pub fn run(args: &Chkread) -> Outcome {
    let name = args.file.display();
    check_kind(args).with_context(|| name.to_string())?;
    let (size, difference) = compare(&args.file).with_context(|| format!("cannot read {name}"))?;
    if args.json {
        print_json(&ChkreadReport { version: 1, path: name.to_string(), bytes: size, difference })?;
    }
    match difference {
        Some(offset) => {
            notice!("{name}: read and mmap differ at offset {offset}");
            return Ok(FAILED);
        }
        None if args.json => {}
        None => say!("{name}: read and mmap return the same {size} bytes")?,
    }
    Ok(OK)
}

/// Checks that the file is the superblock or the log that the options say it is.
fn check_kind(args: &Chkread) -> Result<()> {
    if !args.superblock && !args.log {
        return Ok(());
    }
    let file = File::open(&args.file)?;
    if args.superblock {
        let mut bytes = [0; size_of::<format::Superblock>()];
        file.read_exact_at(&mut bytes, 0).context("cannot read the superblock")?;
        Superblock::parse(&bytes, 0)?;
        return Ok(());
    }
    let size = file.metadata()?.len();
    let bytes = MetaBytes { file, start: LOG_OFFSET, size };
    Log::header(&bytes, size)?;
    Ok(())
}

/// A file that holds a part of a device, for reading.
struct MetaBytes {
    file: File,
    /// Where on the device the part starts.
    start: u64,
    size: u64,
}

impl Media for MetaBytes {
    fn len(&self) -> u64 {
        self.start + self.size
    }

    fn origin(&self) -> u64 {
        0
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), MediaError> {
        let len = buf.len() as u64;
        let at = offset.checked_sub(self.start).ok_or(io::ErrorKind::UnexpectedEof.into());
        at.and_then(|at| self.file.read_exact_at(buf, at))
            .map_err(|source| self.error(offset, len, source))
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), MediaError> {
        let error = io::ErrorKind::ReadOnlyFilesystem.into();
        Err(self.error(offset, buf.len() as u64, error))
    }

    fn persist(&self, _offset: u64, _len: u64) -> Result<(), MediaError> {
        Ok(())
    }

    fn refresh(&self, _offset: u64, _len: u64) -> Result<(), MediaError> {
        Ok(())
    }
}

impl MetaBytes {
    fn error(&self, offset: u64, len: u64, source: io::Error) -> MediaError {
        MediaError::Io { action: "read", offset, len, path: "the file".into(), source }
    }
}

/// How often what differs is read again.
const LOOKS: u32 = 3;

/// Size of a file, and the offset of the first byte at which read(2) and a mapping differ.
fn compare(path: &Path) -> Result<(u64, Option<u64>)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        bail!("expected a regular file that is not empty");
    }
    let size = metadata.len();
    let mapped = MappedFile::new(&file, size, Access::Read)?;
    let (mut by_read, mut by_mmap) = (vec![0; COPY_STEP], vec![0; COPY_STEP]);
    for (offset, len) in steps(size) {
        let (by_read, by_mmap) = (&mut by_read[..len], &mut by_mmap[..len]);
        let mut differs = None;
        // A store of somebody else, like the heartbeat of a lease, can come between the two.
        for _ in 0..LOOKS {
            file.read_exact_at(by_read, offset)?;
            mapped.read(offset, by_mmap)?;
            differs = by_read.iter().zip(&*by_mmap).position(|(a, b)| a != b);
            if differs.is_none() {
                break;
            }
        }
        if let Some(at) = differs {
            return Ok((size, Some(offset + at as u64)));
        }
    }
    Ok((size, None))
}
