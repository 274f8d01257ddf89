// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What each suite runs.

use std::path::{Path, PathBuf};

use anyhow::Result;
use vm_tests::Artifacts;

use super::{Run, fuzz, kmod};
use crate::args::Suite;
use crate::build::{self, Built};
use crate::{guest_programs, guest_python, image, own_guest, paths};

/// Runs one suite.
pub fn run(suite: Suite, run: &mut Run) -> Result<()> {
    match suite {
        Suite::Unit => {
            run.lint("rustfmt", build::cargo().args(["fmt", "--all", "--check"]))?;
            let clippy = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-Dwarnings"];
            run.lint("clippy", build::cargo().args(clippy))?;
            run.cargo_test(&["--workspace", "--lib", "--bins"])?;
            run.cargo_test(&["-p", "xtask", "--test", "refusals"])?;
            let rules = ["--test", "house", "--test", "manual", "--test", "documents"];
            run.cargo_test(&[&["-p", "vm-tests"], &rules[..]].concat())
        }
        Suite::Protocol => {
            // Emitted scripts call it; cargo builds only the programs of the package whose tests it
            // runs.
            let famfs = ["build", "--quiet", "-p", "famfs-cli", "--bins"];
            run.lint("famfs builds", build::cargo().args(famfs))?;
            run.cargo_test(&["-p", "vhost-famfs", "--test", "*"])
        }
        Suite::Tools => {
            run.cargo_test(&["-p", "famfs", "-p", "famfs-cli", "--test", "*"])?;
            run.cargo_test(&["-p", "trees", "--test", "*"])?;
            run.cargo_test(&["-p", "fuzz", "--test", "*"])
        }
        Suite::Fuzz => fuzz::run(run),
        Suite::Kmod => {
            if run.only.is_empty() {
                kmod::lints(run)?;
            }
            in_vms("kmod", run)
        }
        Suite::Device => in_vms("device", run),
        Suite::Image => {
            if run.only.is_empty() {
                super::image::run(&image::run()?, run)?;
            }
            in_vms("image", run)
        }
        Suite::Guest => in_vms("guest", run),
        Suite::Pool => in_vms("pool", run),
        Suite::Cluster => in_vms("cluster", run),
        Suite::Package => super::package::run(run),
        Suite::Libvirt => super::libvirt::run(run),
        Suite::Ublk => {
            if run.only.is_empty() {
                without_default_features(run)?;
            }
            in_vms("ublk", run)
        }
    }
}

/// Whether a suite boots virtual machines, and so runs alone among those that do.
pub fn boots_vms(suite: Suite) -> bool {
    suite == Suite::Libvirt || has_parts(suite)
}

/// Whether a suite is of scenarios in virtual machines, of which parts can be chosen.
pub fn has_parts(suite: Suite) -> bool {
    use Suite::{Fuzz, Libvirt, Package, Protocol, Tools, Unit};
    !matches!(suite, Unit | Protocol | Tools | Fuzz | Package | Libvirt)
}

/// Runs one of the test programs that boot virtual machines.
fn in_vms(name: &str, run: &mut Run) -> Result<()> {
    let imaged = image::run()?;
    let mut artifacts = imaged.artifacts(&paths::target().join("vm").join(name))?;
    artifacts.all = run.all;
    if name == "kmod" {
        artifacts.lts_image = image::run_lts(&imaged.built)?;
        if artifacts.lts_image.is_none() {
            run.skip(
                "famfs.ko on the long-term kernel",
                "the host's own tools have no headers of it",
            );
        }
        if run.all {
            artifacts.oldest_image = image::run_oldest(&imaged.built)?;
            if artifacts.oldest_image.is_none() {
                run.skip(
                    "famfs.ko on the oldest kernel with fsdev_dax",
                    "these tools have headers of one such kernel only",
                );
            }
        }
    }
    match name {
        "ublk" => artifacts.guest_programs = Some(ublk_programs(&imaged.built)?),
        "guest" => artifacts.guest_programs = Some(python(&imaged.built)?),
        "cluster" if wants_own_guest(run) => {
            artifacts.own_guest = Some(own_guest::make(&imaged)?);
        }
        _ => {}
    }
    with_artifacts(name, &artifacts, run)
}

/// What the guest of the ublk suite runs beside what the appliance has.
fn ublk_programs(built: &Built) -> Result<PathBuf> {
    let dir = paths::new_directory("ublk-programs")?;
    let program = built.host.join("vhost-famfs");
    let names = ["fio", "mkfs.ext4", "logger", "cmp", "diff", "setpriv"].map(Path::new);
    let programs: Vec<&Path> = names.into_iter().chain([program.as_path()]).collect();
    guest_programs::collect(&built.tools, &dir, Artifacts::GUEST_PROGRAMS, &programs)?;
    Ok(dir)
}

/// Whether the scenario with a guest of the user's own is chosen, for which much is made.
fn wants_own_guest(run: &Run) -> bool {
    let scenario = |word: &String| word.split('/').next().unwrap_or_default().to_owned();
    run.only.is_empty()
        || run.only.iter().any(|word| Artifacts::OWN_GUEST.contains(&scenario(word)))
}

/// A Python that the guest suite runs from a mount.
fn python(built: &Built) -> Result<PathBuf> {
    let dir = paths::new_directory("guest-python")?;
    guest_python::collect(&built.tools, &dir, "/mnt/famfs/programs", true)?;
    Ok(dir)
}

/// The program without what needs libclang to be built.
fn without_default_features(run: &mut Run) -> Result<()> {
    let build = ["check", "--quiet", "-p", "vhost-famfs", "--no-default-features"];
    run.lint("vhost-famfs builds without ublk", build::cargo().args(build))
}

/// Runs the module's test programs, or parts of that, on the debug kernel.
pub fn on_debug_kernel(run: &mut Run) -> Result<()> {
    let imaged = image::run_debug()?;
    let artifacts = imaged.artifacts(&paths::target().join("vm/kmod-debug"))?;
    let artifacts = Artifacts { all: run.all, debug_kernel: true, ..artifacts };
    with_artifacts("kmod", &artifacts, run)
}

fn with_artifacts(name: &str, artifacts: &Artifacts, run: &mut Run) -> Result<()> {
    artifacts.save(&paths::target().join("artifacts.json"))?;
    let parts = run.only.clone();
    let mut args = vec!["-p", "vm-tests", "--test", name, "--"];
    args.extend(parts.iter().map(String::as_str));
    run.cargo_test(&args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libvirt_boots_vms_and_has_no_parts() {
        assert!(boots_vms(Suite::Libvirt) && !has_parts(Suite::Libvirt));
        assert!(boots_vms(Suite::Kmod) && has_parts(Suite::Kmod));
        assert!(!boots_vms(Suite::Unit));
    }
}
