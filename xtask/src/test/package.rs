// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks the packages: what is in them, and what they do to systems of their own.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::in_system;
use super::run::Run;
use crate::chroot::Release;
use crate::package::{self, Package, Packaged};
use crate::{exec, packages, paths};

/// The C library of the oldest distribution that the packages are for, Debian 12.
const OLDEST_GLIBC: (u32, u32) = (2, 36);

/// The packages of all sizes together, in bytes.
const MAX_BYTES: u64 = 60_000_000;

/// The version that is installed before the upgrade.
const EARLIER: &str = "0.0.1-1";

/// What runs in the systems.
const SCRIPT: &str = "life.sh";

/// The systems. QEMU is in them, and what else the packages depend on, so that their installation
/// downloads nothing.
const RELEASES: [Release; 2] = [
    Release {
        name: "Debian 12",
        id: "bookworm",
        suite: "bookworm",
        more: &["bookworm-updates"],
        packages: &["kmod", "man-db", "procps", "qemu-system-x86", "systemd"],
    },
    Release {
        name: "Debian 13",
        id: "trixie",
        suite: "trixie",
        more: &["trixie-updates", "trixie-backports"],
        packages: &[
            "dkms",
            "kmod",
            "linux-headers-cloud-amd64/trixie-backports",
            "man-db",
            "openssl",
            "procps",
            "qemu-system-x86",
            "systemd",
        ],
    },
];

/// Runs the checks; a second build of the packages is too slow for continuous integration.
pub fn run(run: &mut Run) -> Result<()> {
    packages::install_missing_for_packages(true)?;
    let packaged = package::run()?;
    run.report("the packages are small", small(&packaged));
    run.report("programs run with the C library of Debian 12", glibc(&packaged));
    for package in Package::ALL {
        lintian(&packaged, package, run)?;
    }
    run.report("a package is the same when it is made again", same(&packaged, run.all));
    run.report("the archive installs and removes itself", archive(&packaged));
    let given = given(&packaged)?;
    for release in RELEASES {
        in_system::run("package", release, given.path(), SCRIPT, run)?;
    }
    Ok(())
}

/// All packages together have a size that one can download.
fn small(packaged: &Packaged) -> Result<()> {
    let sizes = Package::ALL.map(|package| fs::metadata(packaged.deb(package)).map(|m| m.len()));
    let sizes = sizes.into_iter().collect::<Result<Vec<_>, _>>().context("no package")?;
    let all: u64 = sizes.iter().sum();
    ensure!(all <= MAX_BYTES, "{all} bytes, at most {MAX_BYTES}: {sizes:?}");
    Ok(())
}

/// The versions of symbols that the programs need.
fn glibc(packaged: &Packaged) -> Result<()> {
    let programs = [(Package::Host, "vhost-famfs"), (Package::Tools, "famfs")];
    for (package, name) in programs {
        let program = packaged.tree(package).join("usr/bin").join(name);
        let mut readelf = Command::new("readelf");
        let text = exec::output(readelf.args(["--wide", "--version-info"]).arg(&program))?;
        let needed = glibc_of(&text).with_context(|| format!("{name} needs no glibc"))?;
        let (major, minor) = needed;
        ensure!(
            needed <= OLDEST_GLIBC,
            "{name} needs glibc {major}.{minor}, but Debian 12 has 2.36: make the packages there"
        );
    }
    Ok(())
}

/// The newest GLIBC version in what readelf prints.
fn glibc_of(text: &str) -> Option<(u32, u32)> {
    let versions = text.split("Name: GLIBC_").skip(1).filter_map(|rest| {
        let word = rest.split_whitespace().next()?;
        let (major, minor) = word.split_once('.')?;
        Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
    });
    versions.max()
}

/// lintian finds nothing that the package's overrides do not explain.
fn lintian(packaged: &Packaged, package: Package, run: &mut Run) -> Result<()> {
    // It leaves files there.
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let mut lintian = Command::new("lintian");
    lintian
        .env("TMPDIR", dir.path())
        .args(["--fail-on", "error,warning", "--tag-display-limit", "0", "--allow-root"])
        .arg(packaged.deb(package));
    run.lint(&format!("lintian: {}", package.name()), &mut lintian)
}

/// Makes the smallest package again, or with `all` each one.
fn same(packaged: &Packaged, all: bool) -> Result<()> {
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let some = [Package::Dkms, Package::Tools];
    for package in if all { &Package::ALL[..] } else { &some[..] } {
        let first = packaged.deb(*package);
        let again = packaged.again(*package, &package::version(), dir.path())?;
        ensure!(fs::read(&first)? == fs::read(&again)?, "{} differs", first.display());
    }
    Ok(())
}

/// The archive's own script, into a directory.
fn archive(packaged: &Packaged) -> Result<()> {
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let script = paths::root().join("tests/package/archive.sh");
    let mut bash = packaged.imaged.built.tools.command("bash");
    exec::output(bash.arg(script).arg(packaged.archive()).arg(dir.path())).map(drop)
}

/// What the systems get: the packages, those of an earlier version, and the script.
fn given(packaged: &Packaged) -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let (new, old) = (dir.path().join("new"), dir.path().join("old"));
    for version in [&new, &old] {
        fs::create_dir(version).context("cannot create a directory")?;
    }
    for package in Package::ALL {
        let deb = packaged.deb(package);
        let name = deb.file_name().context("a package without a name")?;
        fs::copy(&deb, new.join(name)).context("cannot copy a package")?;
        // The image does not change from version to version here: it takes long to pack.
        if package != Package::Image {
            packaged.again(package, EARLIER, &old)?;
        }
    }
    fs::copy(paths::root().join("tests/package").join(SCRIPT), dir.path().join(SCRIPT))?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::glibc_of;

    #[test]
    fn the_newest_version_counts() {
        let text = "  0x0040:   Name: GLIBC_2.9  Flags: none  Version: 8\n\
                    \x20 0x0050:   Name: GLIBC_2.34  Flags: none  Version: 7\n\
                    \x20 0x0060:   Name: GCC_3.3  Flags: none  Version: 6\n\
                    \x20 0x0070:   Name: GLIBC_2.2.5  Flags: none  Version: 5\n";
        assert_eq!(glibc_of(text), Some((2, 34)));
        assert_eq!(glibc_of("nothing"), None);
    }
}
