// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A disk with everything that the benchmark needs and the appliance does not have: the benchmark
//! programs, fio, Python, the programs that create other file systems, and their kernel modules.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;
use vhost_famfs::vm::Disk;
use vm_tests::{Artifacts, pack_disk};

use crate::build;
use crate::image::Imaged;
use crate::{exec, guest_programs, guest_python, paths};

/// Where guests mount the disk.
pub const PROGRAMS: &str = "/run/bench";

/// The serial number of the disk.
pub const DISK: &str = "kmod-bench";

/// Fills directory `$1` with the modules of kernel `$3` from its package `$2`.
const FILL: &str = r#"
set -eu
PATH=/usr/sbin:/usr/bin
mkdir -p "$1/kernel"
dpkg-deb --extract "$2" "$1/kernel"
ln -s usr/lib "$1/kernel/lib"
depmod --basedir "$1/kernel" "$3"
"#;

/// What the guests need.
pub struct Bench {
    /// Programs, kernel and image.
    pub artifacts: Artifacts,
    /// The disk.
    pub disk: Disk,
    /// The directory of the disk; removed when dropped.
    _dir: TempDir,
}

impl Bench {
    /// Builds the benchmark programs and creates the disk.
    pub fn new(imaged: &Imaged, logs: &Path) -> Result<Self> {
        let tools = &imaged.built.tools;
        let release = tools.kernel_headers()?.release;
        let package = modules_package(&imaged.dir, &release)?;
        let dir = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(paths::cache()?)
            .context("cannot create a scratch directory in the cache")?;
        let tree = dir.path().join("tree");
        exec::step(
            "build-kmod-bench",
            "Building the module's benchmark programs",
            &mut build::make(tools, &paths::root().join("kmod/bench"), &tree.join("bin")),
        )?;
        let mut fill = tools.command("sh");
        fill.args(["-c", FILL, "sh"]).arg(&tree).arg(package).arg(release);
        exec::step("bench-disk", "Collecting the peers' modules", &mut fill)?;
        let peers = ["fio", "mkfs.ext4", "mkfs.xfs"].map(Path::new);
        guest_programs::collect(tools, &tree, PROGRAMS, &peers)?;
        guest_python::collect(tools, &tree, PROGRAMS, false)?;
        let import = paths::root().join("kmod/bench/import.py");
        fs::copy(&import, tree.join("bin/import.py"))
            .with_context(|| format!("cannot copy {}", import.display()))?;
        let artifacts = imaged.artifacts(logs)?;
        let disk = pack_disk(&artifacts, &tree, dir.path().join("disk.erofs"), DISK)?;
        Ok(Self { artifacts, disk, _dir: dir })
    }
}

/// The package with the modules of the image's kernel; mkosi downloaded it to build the image.
fn modules_package(image: &Path, release: &str) -> Result<PathBuf> {
    let path = image.join("manifest.json");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest =
        serde_json::from_str(&text).with_context(|| format!("cannot parse {}", path.display()))?;
    let name = package_file(&manifest, &format!("linux-modules-{release}"))
        .with_context(|| format!("{} lists no modules of Linux {release}", path.display()))?;
    let package = paths::cache()?.join("packages/cache/apt/archives").join(name);
    anyhow::ensure!(
        package.exists(),
        "no package {}: remove {} and run 'cargo xtask image', which downloads it",
        package.display(),
        image.display()
    );
    Ok(package)
}

/// The file name of a package that the manifest of an image lists.
fn package_file(manifest: &Value, name: &str) -> Option<String> {
    let packages = manifest.get("packages")?.as_array()?;
    let package = packages.iter().find(|package| package["name"] == name)?;
    let field = |name: &str| package.get(name)?.as_str();
    // In file names, apt encodes the colon of an epoch this way.
    let version = field("version")?.replace(':', "%3a");
    Some(format!("{name}_{version}_{}.deb", field("architecture")?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::package_file;

    #[test]
    fn packages_are_found_by_what_the_manifest_lists() {
        let manifest = json!({"packages": [
            {"name": "linux-base", "version": "1", "architecture": "all"},
            {"name": "linux-modules-7.3", "version": "1:7.3-1", "architecture": "amd64"},
            {"name": "broken", "version": 5, "architecture": "amd64"},
        ]});
        let file = |name| package_file(&manifest, name);
        assert_eq!(
            file("linux-modules-7.3").as_deref(),
            Some("linux-modules-7.3_1%3a7.3-1_amd64.deb")
        );
        assert_eq!(file("linux-modules-7.4"), None);
        assert_eq!(file("broken"), None);
        assert_eq!(package_file(&json!({}), "linux-base"), None);
    }
}
