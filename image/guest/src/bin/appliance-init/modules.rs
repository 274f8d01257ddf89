// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The initrd's kernel modules.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use rustix::cstr;
use rustix::io::Errno;
use rustix::system::finit_module;

/// Holds the modules, not compressed, and the file [`ORDER`].
pub const DIR: &str = "/modules";

/// Names the modules' files, one a line, each after those that it needs. A second word is the only kind of root that
/// needs the module.
const ORDER: &str = "order";

/// Loads the modules for a kind of root.
pub fn load(kind: &str) -> Result<()> {
    let order = Path::new(DIR).join(ORDER);
    let order =
        fs::read_to_string(&order).with_context(|| format!("cannot read {}", order.display()))?;
    for line in order.lines() {
        let (name, only) = line.split_once(' ').unwrap_or((line, kind));
        if only != kind {
            continue;
        }
        let path = Path::new(DIR).join(name);
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        match finit_module(&file, cstr!(""), 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot load {}", path.display()));
            }
        }
    }
    Ok(())
}
