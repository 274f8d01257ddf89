// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `famfs chkread`

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use famfs::args::Chkread;
use famfs::mount::MappedFile;
use famfs::sys::dax::Access;
use famfs::volume::{COPY_STEP, FileBytes, steps};

use crate::output::{FAILED, OK, Outcome, notice, say};

pub fn run(args: &Chkread) -> Outcome {
    let name = args.file.display();
    let (size, difference) = compare(&args.file).with_context(|| format!("cannot read {name}"))?;
    if let Some(offset) = difference {
        notice!("{name}: read and mmap differ at offset {offset}");
        return Ok(FAILED);
    }
    say!("{name}: read and mmap give the same {size} bytes")?;
    Ok(OK)
}

/// Size of a file, and the offset of the first byte that read(2) and a mapping give differently.
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
        file.read_exact_at(by_read, offset)?;
        mapped.read(offset, by_mmap)?;
        if let Some(at) = by_read.iter().zip(&*by_mmap).position(|(a, b)| a != b) {
            return Ok((size, Some(offset + at as u64)));
        }
    }
    Ok((size, None))
}
