// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Programs of the tools tree or of the host for guests that do not have them, each with its
//! libraries and their loader.

use std::path::Path;

use anyhow::Result;

use crate::exec;
use crate::tools::Tools;

/// Fills directory `$1`, which the guest sees at `$2`, with the programs that follow.
const COLLECT: &str = r#"
set -euo pipefail
PATH=/usr/sbin:/usr/bin
tree=$1 guest=$2
shift 2
mkdir -p "$tree/bin" "$tree/tools" "$tree/lib"
for program; do
    name=${program##*/}
    cp -L "$(command -v "$program")" "$tree/tools/$name"
    ldd "$tree/tools/$name" | sed -n 's,^[^/]*\(/[^ ]*\) (0x.*,\1,p' | xargs cp -L -t "$tree/lib"
    printf '#!/bin/sh\nexec %s --library-path %s %s "$@"\n' \
        "$guest/lib/ld-linux-x86-64.so.2" "$guest/lib" "$guest/tools/$name" >"$tree/bin/$name"
    chmod +x "$tree/bin/$name"
done
"#;

/// Puts programs into `tree`, which a guest will see at `guest`; the programs to call are in its
/// `bin`. Programs are given by name or by path.
pub fn collect(tools: &Tools, tree: &Path, guest: &str, programs: &[&Path]) -> Result<()> {
    let mut command = tools.command("bash");
    command.args(["-c", COLLECT, "bash"]).arg(tree).arg(guest).args(programs);
    exec::step("guest-programs", "Collecting programs for guests", &mut command)
}
