// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The archive for distributions without packages: the trees, with a script that installs them.

use anyhow::Result;

use super::Packaged;
use crate::{exec, paths};

/// Its name without the extensions; also the directory in it.
fn base_name() -> String {
    format!("vhost-famfs-{}-x86_64", env!("CARGO_PKG_VERSION"))
}

/// Its file.
pub fn file_name() -> String {
    format!("{}.tar.zst", base_name())
}

/// Writes it.
pub fn make(packaged: &Packaged, epoch: u64) -> Result<()> {
    let name = base_name();
    let mut tar = packaged.imaged.built.tools.command("tar");
    tar.args(["--create", "--sort=name", "--format=gnu", "--owner=0", "--group=0"])
        .args(["--numeric-owner", "--mode=u+w,go-w", &format!("--mtime=@{epoch}")])
        .args(["--use-compress-program", "zstd -12 -T2"])
        // Of names, not of the targets of links.
        .arg(format!("--transform=flags=r;s,^tree,{name}/packages,"))
        .arg(format!("--transform=flags=r;s,^LICENSES,{name}/LICENSES,"))
        .arg(format!("--transform=flags=r;s,^packaging,{name},"))
        .arg("--file")
        .arg(packaged.archive())
        .arg("--directory")
        .arg(paths::root())
        .args(["LICENSES", "packaging/install.sh"])
        .arg("--directory")
        .arg(&packaged.dir)
        .arg("tree");
    exec::step("package-archive", &format!("Packing {}", file_name()), &mut tar)
}
