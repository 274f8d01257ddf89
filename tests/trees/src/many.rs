// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Many small files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::contents::bytes;

/// Files in one directory.
const IN_DIRECTORY: u64 = 100;

/// Makes so many files of 1 to 4,096 bytes, a hundred to a directory: 100,000 are in 1,000
/// directories. Their times are those of their making. Returns their bytes.
pub fn plant_many(dir: &Path, files: u64) -> Result<u64> {
    let content = bytes(7, 8192);
    let mut total = 0;
    for number in 0..files {
        let inner = dir.join(format!("dir-{:04}", number / IN_DIRECTORY));
        if number % IN_DIRECTORY == 0 {
            fs::create_dir_all(&inner)
                .with_context(|| format!("cannot make {}", inner.display()))?;
        }
        // A step that is prime to the sizes, so that each comes equally often.
        let size = usize::try_from(number * 1237 % 4096)? + 1;
        let start = usize::try_from(number % 4096)?;
        let path = inner.join(format!("file-{number:06}.txt"));
        fs::write(&path, &content[start..][..size])
            .with_context(|| format!("cannot make {}", path.display()))?;
        total += u64::try_from(size)?;
    }
    Ok(total)
}
