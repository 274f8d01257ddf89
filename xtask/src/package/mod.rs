// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask package`: Debian packages, and one archive for other distributions, in
//! target/package.
//!
//! ```text
//! build, image --contents--> tree/NAME/              what NAME installs, as below /
//!                               |-- cargo-deb --> NAME_VERSION_amd64.deb
//!                               `-- tar, zstd --> vhost-famfs-VERSION-x86_64.tar.zst
//! packaging/NAME/ in the checkout                   names, texts, dependencies, scripts
//! ```
//! The same sources give the same bytes: all times are that of the commit, or of the image.

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

/// The directory beside the packages with files that identify their inputs.
const STAMPS: &str = "inputs";

/// What was made.
pub struct Packaged {
    /// The directory of the packages.
    pub dir: PathBuf,
    /// The build results and the image in them.
    pub imaged: Imaged,
    /// The time that files have.
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
        debs::make(package, &self.tree(package), version, self.epoch_of(package)?, dir)
    }

    /// The time of a package's files. The image has its own, so that it is not packed again, which
    /// takes a minute, for each commit.
    fn epoch_of(&self, package: Package) -> Result<u64> {
        if package != Package::Image {
            return Ok(self.epoch);
        }
        let path = paths::root().join("mkosi.conf");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let time = text.lines().find_map(|line| line.strip_prefix("SourceDateEpoch="));
        let time = time.and_then(|time| time.parse().ok());
        time.with_context(|| format!("{} has no SourceDateEpoch", path.display()))
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

/// Makes what is not up to date.
pub fn run() -> Result<Packaged> {
    let imaged = image::run()?;
    packages::install_missing_for_packages(false)?;
    let packaged = Packaged { dir: paths::target().join("package"), imaged, epoch: epoch()? };
    let mut all = Key::default().path(&paths::root().join("packaging/install.sh"))?;
    for package in Package::ALL {
        all =
            all.text(&one(package, &packaged.dir, &packaged.imaged, packaged.epoch_of(package)?)?);
    }
    let key = all.text(&packaged.epoch.to_string()).finish();
    make_once(&packaged.archive(), &key, || archive::make(&packaged, packaged.epoch))?;
    remove_others(&packaged)?;
    Ok(packaged)
}

/// Makes some packages in a directory of their own, for a test. They have no time of a commit, so
/// that they stay the same from commit to commit.
pub fn some(imaged: &Imaged, packages: &[Package], dir: &Path) -> Result<Vec<PathBuf>> {
    let make = |package: &Package| {
        one(*package, dir, imaged, 0)?;
        Ok(dir.join(debs::file_name(*package, &version())))
    };
    packages.iter().map(make).collect()
}

/// Makes a package unless it is up to date; returns the key of its inputs.
fn one(package: Package, dir: &Path, imaged: &Imaged, epoch: u64) -> Result<String> {
    let tree_dir = tree_dir(dir, package);
    let tree = Tree::new(tree_dir.clone())?;
    contents::install(package, &tree, imaged)?;
    let key = Key::default().text(&epoch.to_string()).text(tool::VERSION).text(&version());
    let key = key.path(&paths::root().join("packaging").join(package.name()))?;
    let key = tree.add_to(key)?.finish();
    make_once(&dir.join(debs::file_name(package, &version())), &key, || {
        debs::make(package, &tree_dir, &version(), epoch, dir).map(drop)
    })?;
    Ok(key)
}

/// Makes a file with `make`, unless the one that is there has the same inputs.
fn make_once(file: &Path, key: &str, make: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = stamp(file);
    if file.exists() && fs::read_to_string(&stamp).is_ok_and(|there| there == key) {
        return Ok(());
    }
    make()?;
    let parent = stamp.parent().context("a file without a directory")?;
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(&stamp, key))
        .with_context(|| format!("cannot write {}", stamp.display()))
}

/// The file that identifies the inputs of another one.
fn stamp(file: &Path) -> PathBuf {
    file.with_file_name(STAMPS).join(file.file_name().unwrap_or_default())
}

/// Removes packages of earlier runs that have other names.
fn remove_others(packaged: &Packaged) -> Result<()> {
    let dir = &packaged.dir;
    let cannot = || format!("cannot list {}", dir.display());
    let keep = Package::ALL.map(|package| packaged.deb(package));
    for entry in fs::read_dir(dir).with_context(cannot)? {
        let path = entry.with_context(cannot)?.path();
        if path.is_file() && !keep.contains(&path) && path != packaged.archive() {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn tree_dir(dir: &Path, package: Package) -> PathBuf {
    dir.join("tree").join(package.name())
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
