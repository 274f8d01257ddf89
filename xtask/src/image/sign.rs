// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Signatures for UEFI Secure Boot with a user's key.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::exec;
use crate::tools::Tools;

/// Signs every UKI of an image, verifies the signatures, and updates SHA256SUMS.
pub fn sign(tools: &Tools, dir: &Path, key: &Path, certificate: &Path) -> Result<()> {
    let kernels = kernels(dir)?;
    ensure!(!kernels.is_empty(), "no UKI (*.efi) in {} to sign", dir.display());
    for kernel in &kernels {
        let signed = kernel.with_extension("signed");
        exec::output(
            tools
                .command("sbsign")
                .arg("--key")
                .arg(key)
                .arg("--cert")
                .arg(certificate)
                .arg("--output")
                .arg(&signed)
                .arg(kernel),
        )?;
        exec::output(tools.command("sbverify").arg("--cert").arg(certificate).arg(&signed))?;
        fs::rename(&signed, kernel)
            .with_context(|| format!("cannot replace {}", kernel.display()))?;
        eprintln!("signed {}", kernel.display());
    }
    let sums = dir.join("SHA256SUMS");
    let text =
        fs::read_to_string(&sums).with_context(|| format!("cannot read {}", sums.display()))?;
    let names = text.lines().filter_map(|line| line.split_once("  ")).map(|(_, name)| name);
    let text = exec::output(tools.command("sha256sum").args(names).current_dir(dir))?;
    fs::write(&sums, text + "\n").with_context(|| format!("cannot write {}", sums.display()))
}

/// The UKIs of an image.
fn kernels(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "efi"))
        .collect();
    found.sort();
    Ok(found)
}
