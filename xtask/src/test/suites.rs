// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What each suite runs.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use rustix::process::Pid;
use vm_tests::Artifacts;

use super::{Tally, fuzz, kmod};
use crate::args::Suite;
use crate::build::{self, Built};
use crate::interrupt::Interrupt;
use crate::{guest_programs, image, paths};

/// Runs one suite and counts into `tally`.
pub fn run(suite: Suite, all: bool, interrupt: &Interrupt, tally: &mut Tally) -> Result<()> {
    match suite {
        Suite::Unit => {
            lint("rustfmt", build::cargo().args(["fmt", "--all", "--check"]), tally)?;
            let clippy = ["clippy", "--workspace", "--all-targets", "--quiet", "--", "-Dwarnings"];
            lint("clippy", build::cargo().args(clippy), tally)?;
            cargo_test(&["--workspace", "--lib", "--bins"], interrupt, tally)?;
            cargo_test(&["-p", "xtask", "--test", "refusals"], interrupt, tally)?;
            cargo_test(&["-p", "vm-tests", "--test", "house", "--test", "manual"], interrupt, tally)
        }
        Suite::Protocol => {
            // Emitted scripts call it; cargo builds only the programs of the package whose tests it runs.
            let famfs = ["build", "--quiet", "-p", "famfs-cli", "--bins"];
            lint("famfs builds", build::cargo().args(famfs), tally)?;
            cargo_test(&["-p", "vhost-famfs", "--test", "*"], interrupt, tally)
        }
        Suite::Tools => {
            cargo_test(&["-p", "famfs", "-p", "famfs-cli", "--test", "*"], interrupt, tally)?;
            cargo_test(&["-p", "fuzz", "--test", "*"], interrupt, tally)
        }
        Suite::Fuzz => fuzz::run(all, tally),
        Suite::Kmod => {
            kmod::lints(tally)?;
            in_vms("kmod", all, interrupt, tally)
        }
        Suite::Device => in_vms("device", all, interrupt, tally),
        Suite::Image => {
            super::image::run(&image::run()?, all, tally)?;
            in_vms("image", all, interrupt, tally)
        }
        Suite::Guest => in_vms("guest", all, interrupt, tally),
        Suite::Pool => in_vms("pool", all, interrupt, tally),
        Suite::Cluster => in_vms("cluster", all, interrupt, tally),
        Suite::Ublk => {
            without_default_features(tally)?;
            in_vms("ublk", all, interrupt, tally)
        }
    }
}

/// Runs a checking program; it counts as one test.
pub fn lint(name: &str, command: &mut Command, tally: &mut Tally) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    println!("check {name} ... {}", if status.success() { "ok" } else { "FAILED" });
    if status.success() {
        tally.pass();
    } else {
        tally.fail(name, &status.to_string());
    }
    Ok(())
}

/// Runs one of the test programs that boot virtual machines.
fn in_vms(name: &str, all: bool, interrupt: &Interrupt, tally: &mut Tally) -> Result<()> {
    let imaged = image::run()?;
    let mut artifacts = imaged.artifacts(&paths::target().join("vm").join(name))?;
    artifacts.all = all;
    if name == "kmod" {
        artifacts.lts_image = image::run_lts(&imaged.built)?;
        if artifacts.lts_image.is_none() {
            tally.skip(
                "famfs.ko on the long-term kernel",
                "the host's own tools have no headers of it",
            );
        }
        if all {
            artifacts.oldest_image = image::run_oldest(&imaged.built)?;
            if artifacts.oldest_image.is_none() {
                tally.skip(
                    "famfs.ko on the oldest kernel with fsdev_dax",
                    "these tools have headers of one such kernel only",
                );
            }
        }
    }
    if name == "ublk" {
        artifacts.guest_programs = Some(guest_programs(&imaged.built)?);
    }
    with_artifacts(name, &artifacts, &[], interrupt, tally)
}

/// What the guest of the ublk suite runs beside what the appliance has.
fn guest_programs(built: &Built) -> Result<PathBuf> {
    let dir = paths::target().join("ublk-programs");
    match fs::remove_dir_all(&dir) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => {
            return Err(err).with_context(|| format!("cannot remove {}", dir.display()));
        }
        _ => {}
    }
    let program = built.host.join("vhost-famfs");
    let names = ["fio", "mkfs.ext4", "logger", "cmp", "diff", "setpriv"].map(Path::new);
    let programs: Vec<&Path> = names.into_iter().chain([program.as_path()]).collect();
    guest_programs::collect(&built.tools, &dir, Artifacts::GUEST_PROGRAMS, &programs)?;
    Ok(dir)
}

/// The program without what needs libclang to be built.
fn without_default_features(tally: &mut Tally) -> Result<()> {
    let build = ["check", "--quiet", "-p", "vhost-famfs", "--no-default-features"];
    lint("vhost-famfs builds without ublk", build::cargo().args(build), tally)
}

/// Runs the module's test programs, or parts of that, on the debug kernel.
pub fn on_debug_kernel(
    all: bool,
    parts: &[String],
    interrupt: &Interrupt,
    tally: &mut Tally,
) -> Result<()> {
    let imaged = image::run_debug(interrupt)?;
    let artifacts = imaged.artifacts(&paths::target().join("vm/kmod-debug"))?;
    let artifacts = Artifacts { all, debug_kernel: true, ..artifacts };
    with_artifacts("kmod", &artifacts, parts, interrupt, tally)
}

fn with_artifacts(
    name: &str,
    artifacts: &Artifacts,
    parts: &[String],
    interrupt: &Interrupt,
    tally: &mut Tally,
) -> Result<()> {
    artifacts.save(&paths::target().join("artifacts.json"))?;
    let mut args = vec!["-p", "vm-tests", "--test", name, "--"];
    args.extend(parts.iter().map(String::as_str));
    cargo_test(&args, interrupt, tally)
}

/// Runs `cargo test` with `args`, shows its output and counts its tests. A run that fails
/// without a failed test (it does not compile, it crashed) counts as one failure.
fn cargo_test(args: &[&str], interrupt: &Interrupt, tally: &mut Tally) -> Result<()> {
    let mut child = build::cargo()
        .args(["test", "--no-fail-fast"])
        .args(args)
        .env(Artifacts::VARIABLE, paths::target().join("artifacts.json"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    // Whether it comes to its end or not, what it says is read.
    let _ = interrupt.ends([Pid::from_child(&child)]);
    let failed_before = tally.failed;
    let stdout = child.stdout.take().context("cargo has no standard output")?;
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cannot read what cargo prints")?;
        println!("{line}");
        tally.read_line(&line);
    }
    tally.failures.end_program();
    let status = child.wait().context("cannot wait for cargo")?;
    interrupt.forget();
    if !status.success() && tally.failed == failed_before {
        let name = format!("cargo test {}", args.join(" "));
        println!("{name}: {status}");
        tally.fail(&name, &status.to_string());
    }
    Ok(())
}
