// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The root of a Debian system, and a git clone.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::plant::Plant;

/// A small root: merged /usr, set-ID programs, groups, hard links, absolute and dangling links.
pub fn debian(plant: &Plant) -> Result<()> {
    for dir in ["bin", "sbin", "lib", "lib64"] {
        plant.dir(format!("usr/{dir}"))?;
        plant.symlink(dir, format!("usr/{dir}"))?;
    }
    for dir in ["boot", "dev", "home", "mnt", "proc", "run", "srv", "sys", "media", "opt"] {
        plant.dir(dir)?;
    }
    let program = |path: &str, mode: u32, group: u32| {
        plant.random(path, 30_000)?;
        plant.owner(path, 0, group)?;
        plant.mode(path, mode);
        anyhow::Ok(())
    };
    program("usr/bin/ls", 0o755, 0)?;
    program("usr/bin/passwd", 0o4755, 0)?;
    program("usr/bin/chage", 0o2755, 42)?;
    program("usr/bin/wall", 0o2755, 5)?;
    program("usr/lib/dbus-1.0/dbus-daemon-launch-helper", 0o4754, 101)?;
    plant.random("usr/bin/perl", 3_900_000)?;
    plant.mode("usr/bin/perl", 0o755);
    plant.link("usr/bin/perl5.36.0", "usr/bin/perl")?;
    for zone in ["Europe/Berlin", "Arctic/Longyearbyen", "Atlantic/Jan_Mayen", "Etc/Zulu"] {
        plant.random(format!("usr/share/zoneinfo/{zone}"), 2_298)?;
        plant.link(
            format!("usr/share/zoneinfo/right/{zone}"),
            format!("usr/share/zoneinfo/{zone}"),
        )?;
    }
    plant.symlink("etc/localtime", "/usr/share/zoneinfo/Europe/Berlin")?;
    plant.symlink("etc/alternatives/editor", "/usr/bin/vim.basic")?;
    plant.symlink("usr/bin/editor", "/etc/alternatives/editor")?;
    plant.symlink("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf")?;
    plant.symlink("etc/mtab", "/proc/self/mounts")?;
    plant.symlink("usr/lib/x86_64-linux-gnu/libz.so.1", "libz.so.1.2.13")?;
    plant.random("usr/lib/x86_64-linux-gnu/libz.so.1.2.13", 121_280)?;
    plant
        .symlink("usr/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")?;
    plant.file("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")?;
    plant.file("etc/shadow", "root:*:19700:0:99999:7:::\n")?;
    plant.owner("etc/shadow", 0, 42)?;
    plant.mode("etc/shadow", 0o640);
    plant.file("etc/machine-id", "")?;
    plant.file("etc/.pwd.lock", "")?;
    plant.mode("etc/.pwd.lock", 0o600);
    for number in 0..200 {
        plant.random(format!("var/lib/dpkg/info/package-{number}.list"), 37 * number)?;
    }
    for (path, group, mode) in [
        ("root", 0, 0o700),
        ("tmp", 0, 0o1777),
        ("var/tmp", 0, 0o1777),
        ("var/mail", 8, 0o2775),
        ("var/lib/dpkg/triggers", 0, 0o555),
    ] {
        plant.dir(path)?;
        plant.owner(path, 0, group)?;
        plant.mode(path, mode);
    }
    Ok(())
}

/// A git clone with a pack, loose objects and a work tree.
pub fn git(plant: &Plant) -> Result<()> {
    for number in 0..60 {
        plant.random(format!("origin/src/module {number}/file.c"), 100 + 900 * number)?;
    }
    plant.symlink("origin/README", "docs/guide.txt")?;
    plant.file("origin/docs/guide.txt", "# An example\n")?;
    plant.file("origin/run.sh", "#!/bin/sh\n")?;
    rustix::fs::chmod(plant.path().join("origin/run.sh"), 0o755.into())?;
    run(plant, "origin", &["init", "--quiet", "--initial-branch=main"])?;
    commit(plant, "origin", "Begin")?;
    run(plant, "origin", &["tag", "-m", "A tag", "v1"])?;
    run(plant, "origin", &["repack", "-a", "-d", "--quiet"])?;
    run(plant, "", &["clone", "--quiet", "--no-local", "origin", "clone"])?;
    plant.random("clone/new file", 5_000)?;
    commit(plant, "clone", "Go on")
}

fn commit(plant: &Plant, dir: &str, message: &str) -> Result<()> {
    run(plant, dir, &["add", "--all"])?;
    run(plant, dir, &["commit", "--quiet", "--message", message])
}

fn run(plant: &Plant, dir: &str, args: &[&str]) -> Result<()> {
    let made = Command::new("git")
        .args(["-c", "pack.threads=1", "-c", "core.fsync=none", "-c", "gc.auto=0"])
        .args(args)
        .current_dir(plant.path().join(dir))
        // Nothing of the user's: neither settings nor a repository around this one.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", plant.path())
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_NAME"), "A")))
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_EMAIL"), "a@example.com")))
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_DATE"), "1700000000 +0000")))
        .output()
        .context("cannot run git")?;
    let complaint = String::from_utf8_lossy(&made.stderr);
    ensure!(made.status.success(), "git {}: {complaint}", args.join(" "));
    Ok(())
}
