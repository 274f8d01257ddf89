// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Small systems to install packages in: made once from the host's own package sources, kept in the
//! cache, and entered through a layer in memory, so that they stay as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::{self, Held};
use crate::hash::Key;
use crate::{exec, packages, paths};

/// How much space one of them needs.
const BYTES: u64 = 1 << 30;

/// Must be increased when the way they are made changes.
const RECIPE: &str = "1";

/// What such a system is made of.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// Its name for users.
    pub name: &'static str,
    /// Its name in the cache, where a system with another list of packages takes its place.
    pub id: &'static str,
    /// Its suite in the archive.
    pub suite: &'static str,
    /// Further suites, whose packages are taken only where they are asked for.
    pub more: &'static [&'static str],
    /// What is in it besides the smallest system.
    pub packages: &'static [&'static str],
}

/// The directory of a system.
pub struct Chroot {
    /// The root of the system.
    pub dir: PathBuf,
    _held: Held,
}

/// The system of a release; makes it if the cache has none.
pub fn get(release: Release) -> Result<Chroot> {
    let Release { name, id, suite, more, packages } = release;
    let cache = paths::cache()?;
    let suites = [&[suite], more].concat().join(" ");
    let key = Key::default().text(RECIPE).text(&suites).text(&packages.join(" ")).finish();
    let prefix = format!("chroot-{id}-");
    let dir = cache.join(format!("{prefix}{key}"));
    if let Some(held) = cache::hold(&dir)? {
        return Ok(Chroot { dir, _held: held });
    }
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    let _lock = cache::lock(&cache, "chroot.lock")?;
    cache::remove_others(&cache, &prefix, &[&dir])?;
    if !dir.exists() {
        cache::check_space(&cache, &format!("a system with {name}"), BYTES)?;
        let sources = tempfile::NamedTempFile::new().context("no temporary file")?;
        fs::write(sources.path(), packages::sources_of(&suites)?).context("cannot write")?;
        let work = dir.with_extension("part");
        exec::step(
            &format!("chroot-{id}"),
            &format!("Building a system with {name} (2 minutes, kept in the cache)"),
            Command::new("mmdebstrap")
                .args(["--mode=root", "--variant=minbase", "--format=directory"])
                .args(["--aptopt=APT::Install-Recommends \"false\""])
                .args(["--aptopt=Acquire::Languages \"none\""])
                .arg(format!("--include={}", packages.join(",")))
                .arg(suite)
                .args([work.as_path(), sources.path()]),
        )?;
        fs::rename(&work, &dir)
            .with_context(|| format!("cannot move the system to {}", dir.display()))?;
    }
    let held = cache::hold(&dir)?.with_context(|| format!("{} is gone", dir.display()))?;
    Ok(Chroot { dir, _held: held })
}

impl Chroot {
    /// A command that runs a script of `given` inside, as root. `given` is at /mnt there. All
    /// changes go to memory, and all processes end with the script.
    pub fn command(&self, given: &Path, script: &str) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"])
            .args(["bash", "-euo", "pipefail", "-c", ENTER])
            .args([&self.dir, given])
            .arg(script)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("HOME", "/root")
            .env("LC_ALL", "C.UTF-8");
        command
    }
}

/// Puts a layer in memory over a system, and enters it. `$0` is the system, `$1` what is given to
/// it, `$2` the script.
const ENTER: &str = r#"
layer=/run
mount -t tmpfs -o mode=755 tmpfs "$layer"
mkdir "$layer/upper" "$layer/work" "$layer/root"
mount -t overlay -o "lowerdir=$0,upperdir=$layer/upper,workdir=$layer/work" overlay "$layer/root"
cd "$layer/root"
mount --rbind /dev dev
mount -t tmpfs tmpfs dev/shm
mount -t proc proc proc
mount --rbind /sys sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mount --bind "$1" mnt
exec chroot . /bin/bash "/mnt/$2"
"#;
