// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How far the image's units are confined, according to systemd.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use vm_tests::{Artifacts, Session};

/// The files that are copied into the image unchanged, with our units where systemd looks for them.
const TREE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../image/mkosi.extra");

/// The units of services that are not rated: root's shell may do everything.
const NOT_JUDGED: [&str; 1] = ["appliance-console.service"];

/// The units that run by themselves and take no orders, each with its maximum exposure, in tenths.
/// `systemd-analyze security` gives 10 to a unit without any setting. docs/inside/appliance.md
/// tells why the others are not listed. The watch may copy a mount and change the copy's flags,
/// which counts as mounting: 2 tenths.
const MOST: [(&str, u32); 2] = [("famfs-watch.service", 30), ("famfs-attach.service", 29)];

pub fn exposure(session: &mut Session, artifacts: &Artifacts) {
    session.check("every service of the image is judged, or known not to be", || {
        let units = Path::new(TREE).join("usr/lib/systemd/system");
        let there: BTreeSet<String> = fs::read_dir(&units)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .filter(|name| name.as_ref().map_or(true, |name| name.ends_with(".service")))
            .collect::<io::Result<_>>()?;
        let known = MOST.iter().map(|(unit, _)| *unit).chain(NOT_JUDGED).map(str::to_owned);
        ensure!(there == known.collect(), "{there:?} in {}", units.display());
        Ok(())
    });
    for (unit, most) in MOST {
        let what = format!("{unit} is exposed at most {}.{}", most / 10, most % 10);
        session.check(&what, || {
            let judged = Command::new(&artifacts.systemd_analyze)
                .args(["security", "--offline=true", "--no-pager"])
                .arg(format!("--threshold={most}"))
                .arg(format!("--root={TREE}"))
                .arg(unit)
                .output()
                .context("cannot run systemd-analyze")?;
            let said = String::from_utf8_lossy(&judged.stdout).into_owned();
            ensure!(judged.status.success(), "{said}{}", String::from_utf8_lossy(&judged.stderr));
            ensure!(said.contains("Overall exposure level"), "no verdict: {said:?}");
            Ok(())
        });
    }
}
