// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files of an image.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vm_tests::{Artifacts, Session};

/// The shipped files: compressed kernel, initrd and root.
const SHIPPED: [&str; 3] = ["vmlinuz", "initrd.img", "root.erofs"];
const MAX_SHIPPED: u64 = 45_000_000;
/// The same files without a root.
const DISKLESS: [&str; 2] = ["vmlinuz", "initrd-diskless.img"];
const MAX_DISKLESS: u64 = 18_000_000;

/// A pmem device can be mapped with huge pages only if its size is a multiple of them.
const HUGE: u64 = 2 << 20;

pub fn files(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let size = |name: &str| -> Result<u64> {
        let path = artifacts.image.join(name);
        Ok(path.metadata().with_context(|| format!("no file {}", path.display()))?.len())
    };
    let read = |name: &str| -> Result<Value> {
        let path = artifacts.image.join(name);
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        serde_json::from_reader(file).with_context(|| format!("no JSON in {}", path.display()))
    };
    for (what, names, max) in [
        ("what is shipped is at most 45 MB", &SHIPPED[..], MAX_SHIPPED),
        ("without a root, it is at most 18 MB", &DISKLESS[..], MAX_DISKLESS),
    ] {
        session.check(what, || {
            let total = names.iter().map(|name| size(name)).sum::<Result<u64>>()?;
            ensure!(total <= max, "{total} bytes, at most {max}");
            Ok(())
        });
    }
    session.check("the root in memory is a multiple of 2 MiB", || {
        let size = size("root-dax.erofs")?;
        ensure!(size > 0 && size.is_multiple_of(HUGE), "{size} bytes");
        Ok(())
    });
    session.check("the checksums are those of all files", || {
        let sums = Command::new("sha256sum")
            .args(["--check", "--quiet", "--strict", "SHA256SUMS"])
            .current_dir(&artifacts.image)
            .output()
            .context("cannot run sha256sum")?;
        ensure!(sums.status.success(), "{}", String::from_utf8_lossy(&sums.stdout));
        let listed = fs::read_to_string(artifacts.image.join("SHA256SUMS"))?;
        let listed: BTreeSet<String> =
            listed.lines().filter_map(|line| Some(line.split_once("  ")?.1.to_owned())).collect();
        let there: BTreeSet<String> = fs::read_dir(&artifacts.image)?
            .flatten()
            .filter(|entry| entry.path().is_file())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name != "SHA256SUMS" && name != "inputs")
            .collect();
        ensure!(listed == there, "checksums of {listed:?}, files {there:?}");
        Ok(())
    });
    super::units::exposure(session, artifacts);
    bills(session, &read)
}

/// The bills of materials list the packages of the manifest, in the forms that their formats
/// require.
fn bills(session: &mut Session, read: &impl Fn(&str) -> Result<Value>) -> Result<()> {
    let manifest = read("manifest.json")?;
    let packages = manifest["packages"].as_array().context("the manifest lists no packages")?;
    let names: Vec<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    session.check("the manifest lists the packages", || {
        ensure!(names.contains(&"systemd"), "no systemd among {} packages", names.len());
        Ok(())
    });
    session.check("SPDX 2.3 lists the same packages", || {
        let spdx = read("appliance.spdx.json")?;
        ensure!(spdx["spdxVersion"] == "SPDX-2.3" && spdx["dataLicense"] == "CC0-1.0", "{spdx}");
        ensure!(spdx["SPDXID"] == "SPDXRef-DOCUMENT", "{}", spdx["SPDXID"]);
        let listed = spdx["packages"].as_array().context("no packages")?;
        ensure!(listed.len() == names.len() + 1, "{} packages and the image", listed.len());
        let ids: Vec<&str> =
            listed.iter().filter_map(|package| package["SPDXID"].as_str()).collect();
        let fits = |id: &&str| {
            id.strip_prefix("SPDXRef-").is_some_and(|rest| {
                rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
            })
        };
        ensure!(ids.len() == listed.len() && ids.iter().all(fits), "{ids:?}");
        for relation in spdx["relationships"].as_array().context("no relationships")? {
            let related = relation["relatedSpdxElement"].as_str().unwrap_or_default();
            ensure!(ids.contains(&related), "{relation}");
        }
        let needed =
            ["name", "versionInfo", "downloadLocation", "licenseDeclared", "copyrightText"];
        for package in listed {
            ensure!(needed.iter().all(|key| package[key].is_string()), "{package}");
        }
        Ok(())
    });
    session.check("CycloneDX 1.6 lists the same packages", || {
        let bom = read("appliance.cyclonedx.json")?;
        ensure!(bom["bomFormat"] == "CycloneDX" && bom["specVersion"] == "1.6", "{bom}");
        let listed = bom["components"].as_array().context("no components")?;
        let found: Vec<&str> = listed.iter().filter_map(|part| part["name"].as_str()).collect();
        ensure!(found.len() == names.len(), "{} components", found.len());
        ensure!(names.iter().all(|name| found.contains(name)), "{found:?}");
        for part in listed {
            let purl = part["purl"].as_str().unwrap_or_default();
            ensure!(purl.starts_with("pkg:deb/debian/") && part["type"] == "library", "{part}");
        }
        Ok(())
    });
    Ok(())
}
