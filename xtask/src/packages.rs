// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Installs packages on the host, and determines where packages come from.
//!
//! The project names no mirror: the tools tree and the image use the Debian archive that the host's
//! own apt uses.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::exec;

/// The distribution release of the tools tree and of the appliance.
pub const SUITE: &str = "trixie";

/// The keyring that signs the archive, from the package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Host programs that `setup` needs, with the package that contains each.
const NEEDED: &[(&str, &str)] =
    &[("mmdebstrap", "mmdebstrap"), ("unshare", "util-linux"), ("cc", "gcc"), ("c++", "g++")];

/// The package with libclang, which is needed to build the library of `vhost-famfs ublk`.
const LIBCLANG: &str = "libclang-dev";

/// Tells builds the directory of libclang (crate `clang-sys`).
const LIBCLANG_PATH: &str = "LIBCLANG_PATH";

/// The URI of the Debian archive in the host's apt configuration. Downloads the lists that name the
/// origin of each source if they are missing, as on many fresh machines.
fn archive() -> Result<String> {
    if let Some(uri) = known_archive()? {
        return Ok(uri);
    }
    update()?;
    known_archive()?.context(
        "the host's apt configuration has no Debian archive (Origin Debian, component main); \
         add one to /etc/apt/sources.list.d and try again",
    )
}

/// Like [`archive`], from the package lists that exist.
fn known_archive() -> Result<Option<String>> {
    let targets = exec::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Identifier: Packages",
        "Origin: Debian",
        "Label: Debian",
        "Component: main",
    ]))
    .context("cannot ask apt for its package sources")?;
    Ok(targets.lines().next().map(str::to_owned))
}

/// Downloads the package lists.
fn update() -> Result<()> {
    exec::step("apt-update", "Updating the package lists", Command::new("apt-get").arg("update"))
}

/// The contents of a deb822 sources file for [`SUITE`], its updates and its backports.
pub fn sources() -> Result<String> {
    sources_of(&format!("{SUITE} {SUITE}-updates {SUITE}-backports"))
}

/// The contents of a deb822 sources file for suites of the archive.
pub fn sources_of(suites: &str) -> Result<String> {
    let uri = archive()?;
    Ok(format!(
        "Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: main\nSigned-By: {KEYRING}\n"
    ))
}

/// Installs missing host packages; does nothing if none is missing.
pub fn install_missing() -> Result<()> {
    let mut missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(program, _)| !exec::in_path(program))
        .map(|(_, package)| *package)
        .collect();
    missing.extend(libclang());
    if !Path::new(KEYRING).exists() {
        missing.push("debian-archive-keyring");
    }
    install(&missing)
}

/// Installs what making packages needs, if it is missing.
pub fn install_missing_for_packages(check: bool) -> Result<()> {
    let needed = [("dpkg-shlibdeps", "dpkg-dev"), ("lintian", "lintian")];
    let needed = if check { &needed[..] } else { &needed[..1] };
    let missing = needed.iter().filter(|(program, _)| !exec::in_path(program));
    install(&missing.map(|(_, package)| *package).collect::<Vec<_>>())
}

/// Installs what `cargo build` itself needs, if it is missing.
pub fn install_missing_for_build() -> Result<()> {
    install(&libclang().into_iter().collect::<Vec<_>>())
}

fn libclang() -> Option<&'static str> {
    (!has_libclang()).then_some(LIBCLANG)
}

fn install(missing: &[&str]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!(
            "missing packages: {}; run 'cargo xtask setup' as root, or install them with apt-get",
            missing.join(" ")
        );
    }
    if !exec::in_path("apt-get") {
        bail!(
            "missing programs: {}; this host has no apt-get, so install them yourself",
            missing.join(" ")
        );
    }
    update()?;
    exec::step(
        "apt-install",
        "Installing host packages",
        Command::new("apt-get")
            .args(["install", "--yes", "--no-install-recommends"])
            .args(missing)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

/// Whether builds find a libclang on this host: in [`LIBCLANG_PATH`], or where distributions
/// install it.
fn has_libclang() -> bool {
    let told = env::var_os(LIBCLANG_PATH).map(PathBuf::from);
    // Debian installs packages of several versions side by side.
    let versions = fs::read_dir("/usr/lib").into_iter().flatten().filter_map(|entry| {
        let entry = entry.ok()?;
        let name = entry.file_name().into_string().ok()?;
        name.starts_with("llvm").then(|| entry.path().join("lib"))
    });
    let usual = ["/usr/lib64", "/usr/lib", "/usr/local/lib"].map(PathBuf::from);
    told.into_iter().chain(versions).chain(usual).any(|dir| holds_libclang(&dir))
}

fn holds_libclang(dir: &Path) -> bool {
    let names = fs::read_dir(dir).into_iter().flatten();
    names.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).any(|name| {
        let rest = name.strip_prefix("libclang");
        // Matches libclang.so, libclang.so.1, libclang-14.so.1, but not libclang-cpp.so.14, another
        // library.
        rest.is_some_and(|rest| rest.contains(".so") && !rest.starts_with("-cpp"))
    })
}

#[cfg(test)]
mod tests {
    use super::holds_libclang;

    #[test]
    fn libclang_is_told_from_its_relatives() {
        for (name, expected) in [
            ("libclang.so", true),
            ("libclang.so.1", true),
            ("libclang-14.so.1", true),
            ("libclang-cpp.so.14", false),
            ("libclangAST.a", false),
        ] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(name), "").unwrap();
            assert_eq!(holds_libclang(dir.path()), expected, "{name}");
        }
    }
}
