// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A Python for guests, with its library as a tree of files.

use std::path::Path;

use anyhow::Result;

use crate::tools::Tools;
use crate::{exec, guest_programs};

/// Puts the library into `$1/python`, without tests, and what its extensions link to into `$1/lib`.
/// If `$2` is `compiled`, the compiled modules are there too.
const FILL: &str = r#"
set -euo pipefail
PATH=/usr/sbin:/usr/bin
library=$(python3 -c 'import os; print(os.path.dirname(os.__file__))')
mkdir -p "$1/python/lib" "$1/lib"
cp -r "$library" "$1/python/lib/"
copy=$1/python/lib/${library##*/}
rm -rf "$copy"/test "$copy"/lib-dynload/*test*
find "$copy" -name __pycache__ -exec rm -r {} +
ldd "$copy"/lib-dynload/*.so | sed -n 's,^[^/]*=> \(/[^ ]*\) (0x.*,\1,p' | sort -u |
    xargs cp -L -t "$1/lib"
if [[ $2 = compiled ]]; then
    unset SOURCE_DATE_EPOCH
    python3 -m compileall -q "$copy"
fi
"#;

/// Puts Python into `tree`, which a guest will see at `guest`.
pub fn collect(tools: &Tools, tree: &Path, guest: &str, compiled: bool) -> Result<()> {
    guest_programs::collect(tools, tree, guest, &[Path::new("python3")])?;
    let mut fill = tools.command("bash");
    fill.args(["-c", FILL, "bash"]).arg(tree).arg(if compiled { "compiled" } else { "sources" });
    exec::step("guest-python", "Collecting Python for guests", &mut fill)
}
