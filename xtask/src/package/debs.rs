// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The Debian packages, written by cargo-deb. It takes a package from the manifest of a crate, so
//! it gets one: packaging/NAME/deb.toml with the version and the files of the tree.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::tree::{Entry, Tree};
use super::{Package, tool};
use crate::{build, exec, paths};

/// The architecture, in Debian's terms.
const ARCHITECTURE: &str = "amd64";

/// Who answers for the packages.
const MAINTAINER: &str = "the vhost-famfs developers <maintainers@vhost-famfs.invalid>";

/// What dpkg runs; `@VERSION@` in it is the version without the package's own.
const SCRIPTS: [&str; 4] = ["preinst", "postinst", "prerm", "postrm"];

/// The version of the packages.
pub fn version() -> String {
    format!("{}-1", env!("CARGO_PKG_VERSION"))
}

/// The file of a package.
pub fn file_name(package: Package, version: &str) -> String {
    format!("{}_{version}_{ARCHITECTURE}.deb", package.name())
}

/// Writes the package of a tree into `dir`.
pub fn make(
    package: Package,
    tree: &Path,
    version: &str,
    epoch: u64,
    dir: &Path,
) -> Result<PathBuf> {
    let name = package.name();
    let work = tempfile::tempdir().context("no temporary directory")?;
    let cannot = || format!("cannot write the description of {name}");
    write_crate(package, tree, version, epoch, work.path()).with_context(cannot)?;
    let file = dir.join(file_name(package, version));
    let mut command = Command::new(tool::cargo_deb()?);
    command
        .arg("--manifest-path")
        .arg(work.path().join("Cargo.toml"))
        .args(["--no-build", "--no-strip", "--quiet", "--deb-version", version])
        .arg("--output")
        .arg(&file)
        .current_dir(work.path())
        .env("CARGO", build::cargo().get_program())
        .env("SOURCE_DATE_EPOCH", epoch.to_string());
    exec::step(&format!("package-{name}"), &format!("Packing {name}"), &mut command)?;
    Ok(file)
}

/// The crate that cargo-deb reads.
fn write_crate(
    package: Package,
    tree: &Path,
    version: &str,
    epoch: u64,
    work: &Path,
) -> Result<()> {
    let given = paths::root().join("packaging").join(package.name());
    let settings = fs::read_to_string(given.join("deb.toml"))?;
    let scripts = work.join("scripts");
    fs::create_dir(&scripts)?;
    for script in SCRIPTS {
        if given.join(script).exists() {
            let text = fs::read_to_string(given.join(script))?;
            fs::write(scripts.join(script), text.replace("@VERSION@", env!("CARGO_PKG_VERSION")))?;
        }
    }
    fs::write(work.join("changelog"), changelog(version, epoch)?)?;
    fs::create_dir(work.join("src"))?;
    fs::write(work.join("src/lib.rs"), "")?;
    let mut manifest = format!(
        "[package]\nname = {:?}\nversion = {:?}\nedition = \"2024\"\ndescription = {:?}\n\
         license = \"Apache-2.0 OR MIT\"\n\n[workspace]\n\n[package.metadata.deb]\n\
         maintainer = {MAINTAINER:?}\npriority = \"optional\"\nmaintainer-scripts = \"scripts\"\n\
         changelog = \"changelog\"\n{settings}\nassets = [\n",
        package.name(),
        env!("CARGO_PKG_VERSION"),
        package.summary(),
    );
    for (path, entry) in Tree::open(tree).entries()? {
        let (from, to) = (tree.join(&path), path.display().to_string());
        match entry {
            Entry::File(mode) => writeln!(manifest, "  [{from:?}, {to:?}, \"{mode:o}\"],")?,
            Entry::Link(target) => {
                writeln!(manifest, "  {{ dest = {to:?}, link_name = {target:?} }},")?;
            }
        }
    }
    manifest.push_str("]\n");
    fs::write(work.join("Cargo.toml"), manifest)?;
    Ok(())
}

/// Debian's changelog, with one entry: what changed is in NEWS.md.
fn changelog(version: &str, epoch: u64) -> Result<String> {
    let date = exec::output(
        Command::new("date").args(["--utc", "--rfc-email", "--date"]).arg(format!("@{epoch}")),
    )?;
    Ok(format!(
        "vhost-famfs ({version}) unstable; urgency=medium\n\n  \
         * What changed is in /usr/share/doc/vhost-famfs/NEWS.md.gz.\n\n -- {MAINTAINER}  {date}\n"
    ))
}
