// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask package`: Debian packages, and one archive for other distributions.
//!
//! ```text
//! build, image --contents--> target/package/tree/NAME/   what NAME installs, as below /
//!                               |-- cargo-deb --> target/package/NAME_VERSION_amd64.deb
//!                               `-- tar, zstd --> target/package/vhost-famfs-VERSION-x86_64.tar.zst
//! packaging/NAME/               names, texts, dependencies, scripts of the package
//! ```
//! The same sources give the same bytes: all times are that of the commit.

mod archive;
mod contents;
mod debs;
mod tool;
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::hash::Key;
use crate::image::{self, Imaged};
use crate::{exec, packages, paths};
pub use contents::Package;
pub use debs::version;
use tree::Tree;

/// The file beside the packages that identifies their inputs.
const STAMP: &str = "inputs";

/// What was made.
pub struct Packaged {
    /// The directory of the packages.
    pub dir: PathBuf,
    /// The build results and the image in them.
    pub imaged: Imaged,
    /// The time that all files have.
    epoch: u64,
}

impl Packaged {
    /// The file of a package.
    pub fn deb(&self, package: Package) -> PathBuf {
        self.dir.join(debs::file_name(package, &version()))
    }

    /// The archive for other distributions.
    pub fn archive(&self) -> PathBuf {
        self.dir.join(archive::file_name())
    }

    /// What a package installs.
    pub fn tree(&self, package: Package) -> PathBuf {
        tree_dir(&self.dir, package)
    }

    /// Makes one package again in `dir`, under another version.
    pub fn again(&self, package: Package, version: &str, dir: &Path) -> Result<PathBuf> {
        debs::make(package, &self.tree(package), version, self.epoch, dir)
    }
}

/// The command: makes the packages, and lists them with their sizes.
pub fn command() -> Result<()> {
    let packaged = run()?;
    if !image::unlocked(&packaged.imaged)?.is_empty() {
        println!(
            "note: the image has other package versions than image/lock; to ship it, run first: \
             cargo xtask image"
        );
    }
    let debs = Package::ALL.into_iter().map(|package| packaged.deb(package));
    for path in debs.chain([packaged.archive()]) {
        let size = fs::metadata(&path).with_context(|| format!("no {}", path.display()))?.len();
        println!("{} {size}", path.display());
    }
    Ok(())
}

/// Makes the packages that are not up to date.
pub fn run() -> Result<Packaged> {
    let imaged = image::run()?;
    packages::install_missing_for_packages(false)?;
    let dir = paths::target().join("package");
    let epoch = epoch()?;
    let mut key = Key::default().text(&epoch.to_string()).text(tool::VERSION);
    for package in Package::ALL {
        let tree = Tree::new(tree_dir(&dir, package))?;
        contents::install(package, &tree, &imaged, epoch)?;
        key = tree.add_to(key)?;
    }
    let key = key.path(&paths::root().join("packaging"))?.finish();
    let packaged = Packaged { dir, imaged, epoch };
    let stamp = packaged.dir.join(STAMP);
    if fs::read_to_string(&stamp).is_ok_and(|there| there == key) {
        return Ok(packaged);
    }
    clear(&packaged.dir)?;
    for package in Package::ALL {
        packaged.again(package, &version(), &packaged.dir)?;
    }
    archive::make(&packaged, epoch)?;
    fs::write(&stamp, key).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(packaged)
}

fn tree_dir(dir: &Path, package: Package) -> PathBuf {
    dir.join("tree").join(package.name())
}

/// Removes packages of earlier runs, which may have other names.
fn clear(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", dir.display()))?.path();
        if path.is_file() {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// The time of the commit that is checked out, in seconds since 1970; `SOURCE_DATE_EPOCH` if that
/// is set, for example in a tree without git.
fn epoch() -> Result<u64> {
    const VARIABLE: &str = "SOURCE_DATE_EPOCH";
    let text = match std::env::var(VARIABLE) {
        Ok(text) => text,
        Err(_) => exec::output(
            Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(paths::root()),
        )
        .with_context(|| format!("no time for the packages: set {VARIABLE}"))?,
    };
    text.parse().with_context(|| format!("{VARIABLE} is {text:?}, expected seconds since 1970"))
}
