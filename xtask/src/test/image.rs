// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks how the image is built, before its VMs boot.

use std::fs;
use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::run::Run;
use crate::image::{self, Imaged, sign};
use crate::tools::Tools;
use crate::{exec, paths};

/// The UKI to sign here, the smallest.
const KERNEL: &str = "root.efi";

/// Runs the checks; those that build an image are too slow for continuous integration.
pub fn run(imaged: &Imaged, run: &mut Run) -> Result<()> {
    locked(imaged, run)?;
    let tools = &imaged.built.tools;
    run.report("other packages than those of the lock file are an error", lock(tools));
    run.report("a UKI is signed, an altered one does not verify", signed(imaged));
    if run.all {
        run.report("two builds of the image are identical", reproducible(imaged));
    }
    Ok(())
}

/// The tests use the mirror's packages; this check reports whether they are the ones that would be
/// shipped.
fn locked(imaged: &Imaged, run: &mut Run) -> Result<()> {
    let name = "the packages are those of the lock file";
    let differences = image::unlocked(imaged)?;
    for line in &differences {
        run.output.say(line);
    }
    match differences.is_empty() {
        true => run.report(name, Ok(())),
        false => run.skip(name, "the mirror has others; see 'cargo xtask image --update'"),
    }
    Ok(())
}

/// Builds the image a second time; the result must be identical, bit by bit.
fn reproducible(imaged: &Imaged) -> Result<()> {
    let differences = image::differences(imaged)?;
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    Ok(())
}

/// Runs the check as mkosi does, against a lock file, with a list of packages that apt is supposed
/// to have installed.
fn lock(tools: &Tools) -> Result<()> {
    let pack = |installed: &str| -> Result<(Output, usize)> {
        let dir = tempfile::tempdir().context("no temporary directory")?;
        let (source, output) = (dir.path().join("source"), dir.path().join("output"));
        fs::create_dir_all(source.join("image/lock"))?;
        fs::create_dir(&output)?;
        fs::write(source.join("image/lock/default"), "# a comment\nkmod 34-1\nsystemd 257.9-1\n")?;
        let packages = json!({"packages": [
            {"name": "systemd", "version": installed}, {"name": "kmod", "version": "34-1"}
        ]});
        fs::write(output.join("vmlinuz.manifest"), packages.to_string())?;
        let ran = tools
            .command("bash")
            .arg(paths::root().join("image/pack/lock"))
            .env("SRCDIR", &source)
            .env("OUTPUTDIR", &output)
            .env_remove("PROFILES")
            .output()
            .context("cannot run image/pack/lock")?;
        let files = fs::read_dir(&output)?.count();
        Ok((ran, files))
    };
    let refused = "the packages are not those of image/lock/default";
    let said = |ran: &Output| String::from_utf8_lossy(&ran.stderr).into_owned();
    let (same, _) = pack("257.9-1")?;
    ensure!(same.status.success(), "{}", said(&same));
    let (other, files) = pack("257.10-1")?;
    let text = said(&other);
    let expected =
        [refused, "< systemd 257.9-1", "> systemd 257.10-1", "cargo xtask image --update"];
    ensure!(!other.status.success() && expected.iter().all(|part| text.contains(part)), "{text}");
    ensure!(!text.contains("kmod"), "a package that is as locked is named: {text}");
    ensure!(files == 1, "{files} files exist, expected the manifest only");
    Ok(())
}

/// Signs a copy of a UKI with a new key, as `cargo xtask image --sign-key` does.
fn signed(imaged: &Imaged) -> Result<()> {
    let tools = &imaged.built.tools;
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let (key, certificate) = (dir.path().join("key.pem"), dir.path().join("cert.pem"));
    let image = dir.path().join("image");
    fs::create_dir(&image)?;
    let kernel = image.join(KERNEL);
    fs::copy(imaged.dir.join(KERNEL), &kernel).context("no UKI")?;
    let sums = exec::output(tools.command("sha256sum").arg(KERNEL).current_dir(&image))?;
    fs::write(image.join("SHA256SUMS"), format!("{sums}\n"))?;
    exec::output(
        tools
            .command("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"])
            .args(["-subj", "/CN=test", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate),
    )?;
    ensure!(!verifies(tools, &kernel, &certificate)?, "it verifies without a signature");
    sign::sign(tools, &image, &key, &certificate)?;
    ensure!(verifies(tools, &kernel, &certificate)?, "it does not verify");
    let check = ["--check", "--quiet", "--strict", "SHA256SUMS"];
    exec::output(tools.command("sha256sum").args(check).current_dir(&image))?;
    let mut bytes = fs::read(&kernel)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&kernel, bytes)?;
    ensure!(!verifies(tools, &kernel, &certificate)?, "it verifies with one bit changed");
    Ok(())
}

fn verifies(tools: &Tools, kernel: &Path, certificate: &Path) -> Result<bool> {
    let mut sbverify = tools.command("sbverify");
    let output = sbverify.arg("--cert").arg(certificate).arg(kernel).output();
    Ok(output.context("cannot run sbverify")?.status.success())
}
