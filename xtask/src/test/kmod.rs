// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks the kernel module without booting it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::run::Run;
use crate::tools::{KernelHeaders, Tools};
use crate::{build, exec, paths, setup};

/// Warnings of compiler, sparse and kernel-doc for every kernel with headers, the kernel's style
/// check, and the ways to install the module.
pub fn lints(run: &mut Run) -> Result<()> {
    let tools = setup::run()?;
    for headers in tools.all_kernel_headers()? {
        check(&tools, &headers, run)?;
    }
    checkpatch(&tools, run)?;
    manual(run)?;
    let newest = tools.kernel_headers()?;
    script(&tools, &newest, "dkms.sh", "dkms.conf builds and cleans", run)?;
    script(&tools, &newest, "kconfig.sh", "Kconfig reads as in a kernel tree", run)?;
    script(&tools, &newest, "sign.sh", "make sign, make install", run)?;
    script(&tools, &newest, "jump_label.sh", "counters that are off cost nothing", run)
}

/// `make check`.
fn check(tools: &Tools, headers: &KernelHeaders, run: &mut Run) -> Result<()> {
    let out = paths::target().join(format!("kmod-check-{}", headers.release));
    let mut check = build::make(tools, &source(), &out);
    check.arg(format!("KDIR={}", headers.dir.display())).arg("check");
    let what = match tools.kernel_scripts() {
        Some(scripts) => {
            check.arg(format!("KERNEL_DOC={}", scripts.join("tools/docs/kernel-doc").display()));
            "W=1, sparse and kernel-doc"
        }
        None => "W=1 and sparse",
    };
    run.lint(&format!("famfs.ko for {}: {what}", headers.release), &mut check)
}

/// The kernel's style check for module and interface.
fn checkpatch(tools: &Tools, run: &mut Run) -> Result<()> {
    let Some(scripts) = tools.kernel_scripts() else {
        run.skip("checkpatch --strict", "the host's own tools have no checkpatch.pl");
        return Ok(());
    };
    let kmod = source();
    let mut files: Vec<_> = kmod
        .read_dir()
        .with_context(|| format!("cannot list {}", kmod.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "c" || e == "h"))
        .collect();
    files.push(kmod.join("uapi/famfs_ioctl.h"));
    let mut checkpatch = Command::new("perl");
    checkpatch
        .arg(scripts.join("scripts/checkpatch.pl"))
        .args(["--strict", "--terse", "--no-tree", "--quiet"])
        // An out-of-tree module must check the kernel version; a house rule restricts that to
        // compat.h.
        .args(["--ignore", "LINUX_VERSION_CODE,CONSTANT_COMPARISON", "--file"])
        .args(files);
    run.lint("checkpatch --strict", &mut checkpatch)
}

/// Warnings of the formatter for famfs(5).
fn manual(run: &mut Run) -> Result<()> {
    let name = "famfs(5) formats without warnings";
    if !exec::in_path("groff") {
        run.skip(name, "this host has no groff");
        return Ok(());
    }
    // groff's exit status does not reflect warnings, so there must be no warning in its output.
    let script = "said=$(groff -man -ww -z -Tutf8 \"$0\" 2>&1) && [ -z \"$said\" ] ||
        { printf '%s\\n' \"$said\" >&2; exit 1; }";
    let mut groff = Command::new("sh");
    groff.args(["-c", script]);
    run.lint(name, groff.arg(paths::root().join("docs/reference/famfs.5")))
}

/// Runs a script of the module's with the sources, the headers and a scratch directory.
fn script(
    tools: &Tools,
    headers: &KernelHeaders,
    name: &str,
    what: &str,
    run: &mut Run,
) -> Result<()> {
    let work = tempfile::tempdir().context("no temporary directory")?;
    let mut command = tools.command("bash");
    command.arg(source().join("tests").join(name)).arg(source());
    run.lint(what, command.arg(&headers.dir).arg(work.path()))
}

/// The directory of the module.
fn source() -> PathBuf {
    paths::root().join("kmod")
}
