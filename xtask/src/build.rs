// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask build`: host programs with their manuals, guest programs, famfs.ko and its
//! test programs.

use std::env;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::Result;

use crate::tools::{KernelHeaders, Tools};
use crate::{cache, exec, manual, paths, setup};

/// The target of guest programs. It is set on the command line so that cargo builds procedural
/// macros and build scripts without the guest's flags, and only once for host and guest.
pub const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

/// What was built, and where.
pub struct Built {
    /// The tools used for the build.
    pub tools: Tools,
    /// The host's programs: `vhost-famfs`, `famfs`.
    pub host: PathBuf,
    /// The guest's static programs: `famfs`, `appliance-init`, `appliance-agent`, and `trees` for
    /// tests.
    pub guest: PathBuf,
    /// The kernel module.
    pub module: PathBuf,
    /// The module's test programs: static, each prints TAP.
    pub module_tests: PathBuf,
}

/// Builds everything that is not up to date.
pub fn run() -> Result<Built> {
    let tools = setup::run()?;
    let target = paths::target();
    let _lock = cache::lock(&target, "build.lock")?;
    let host = target.join("release");
    exec::step(
        "build-host",
        "Building the host programs",
        cargo().args(["build", "--release", "-p", "famfs-cli", "-p", "vhost-famfs"]),
    )?;
    manual::write()?;
    exec::step(
        "build-guest",
        "Building the guest programs",
        cargo()
            .args(["build", "--release", "-p", "famfs-cli", "-p", "guest", "-p", "trees"])
            .args(["--target", GUEST_TARGET])
            .env("RUSTFLAGS", "-C target-feature=+crt-static"),
    )?;
    let module = module(&tools, &tools.kernel_headers()?, &target.join("kmod"))?;
    let module_tests = target.join("kmod-tests");
    exec::step(
        "build-kmod-tests",
        "Building the module's test programs",
        &mut make(&tools, &paths::root().join("kmod/tests"), &module_tests),
    )?;
    Ok(Built {
        tools,
        host,
        guest: target.join(GUEST_TARGET).join("release"),
        module,
        module_tests,
    })
}

/// Builds famfs.ko in `dir` for the kernel of the given headers.
pub fn module(tools: &Tools, headers: &KernelHeaders, dir: &Path) -> Result<PathBuf> {
    exec::step(
        &format!("build-{}", dir.file_name().unwrap_or_default().display()),
        &format!("Building famfs.ko for {}", headers.release),
        make(tools, &paths::root().join("kmod"), dir)
            .arg(format!("KDIR={}", headers.dir.display())),
    )?;
    Ok(dir.join("famfs.ko"))
}

/// The cargo that runs this program.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::root());
    command
}

/// `make` in `dir` with the kernel's compiler; output goes to `out`.
pub fn make(tools: &Tools, dir: &Path, out: &Path) -> Command {
    let mut command = tools.command("make");
    let jobs = thread::available_parallelism().map_or(1, NonZero::get);
    command.arg(format!("-j{jobs}")).arg("-C").arg(dir);
    command.arg(format!("OUT={}", out.display())).arg("CC=gcc-14");
    command
}
