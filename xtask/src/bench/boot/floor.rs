// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The floor: the appliance's kernel with an initrd that contains only busybox, timed up to its
//! shell. Whatever a VM takes beyond that is due to the appliance.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};
use vm_tests::Artifacts;

use crate::exec;
use crate::paths;
use crate::tools::Tools;

/// What the floor's shell prints.
pub const MARK: &str = "the floor has a shell";

/// Fills directory `$1` with an initrd that prints `$2`. Like the appliance's initrd for QEMU, it
/// is not compressed.
const MAKE: &str = r##"
set -eu
mkdir -p "$1/tree/bin"
cp "$(command -v busybox)" "$1/tree/bin/"
ln -s busybox "$1/tree/bin/sh"
printf '#!/bin/sh\necho "%s"\nexec sh\n' "$2" >"$1/tree/init"
chmod 755 "$1/tree/init"
cd "$1/tree"
find . | LC_ALL=C sort | cpio --create --format=newc --owner=0:0 --reproducible --quiet >"$1/initrd-diskless.cpio"
"##;

/// The other files that an image must have to be opened as one.
const OTHERS: [&str; 3] = ["vmlinux", "initrd.cpio", "root.erofs"];

/// The same artifacts with an image whose diskless form is the floor. A VM of it has exactly the
/// options of a diskless appliance.
pub fn make(tools: &Tools, artifacts: &Artifacts) -> Result<Artifacts> {
    let dir = paths::target().join("bench/floor");
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    exec::output(tools.command("sh").args(["-c", MAKE, "sh"]).arg(&dir).arg(MARK))?;
    for name in OTHERS {
        link(&artifacts.image.join(name), &dir.join(name))?;
    }
    Ok(Artifacts { image: dir, ..artifacts.clone() })
}

fn link(to: &Path, from: &Path) -> Result<()> {
    symlink(to, from).with_context(|| format!("cannot create {}", from.display()))
}
