// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A Debian of a user's own in a cluster: VMs boot from its disk by QEMU's BIOS and by UEFI
//! firmware, and with a kernel of the host.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use vm_tests::{Artifacts, Session, health};

use super::loop_device::LoopDevice;
use super::program::{LIMIT, Program, end_of, until};

const NAMES: [&str; 3] = ["kernel", "firmware", "bios"];

/// How long a whole distribution may take to boot on a busy host, in seconds.
const BOOT: &str = "540";

/// What makes root devices without ublk.
const LOOP_ROOT: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../vhost-famfs/tests/support/loop-root.sh");

/// What the kernel of the host is told.
const APPEND: &str = "root=LABEL=own-guest rw";

pub fn scenario(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let given = artifacts.own_guest.as_deref().context("no disk of an own guest was made")?;
    let program = Program::new(artifacts)?;
    let pool = program.pools.path().join("own");
    let file = program.pools.path().join("own.toml");
    let (raw, qcow2) = (given.join("disk.raw"), given.join("disk.qcow2"));
    let vm = |name: &str| match name {
        "kernel" => format!(
            "[[vm]]\nname = {name:?}\nimage = {raw:?}\nkernel = {:?}\ninitrd = {:?}\n\
             append = {APPEND:?}\n",
            given.join("vmlinuz"),
            given.join("initrd")
        ),
        "bios" => format!("[[vm]]\nname = {name:?}\nimage = {qcow2:?}\n"),
        _ => format!(
            "[[vm]]\nname = {name:?}\nimage = {qcow2:?}\nfirmware = {:?}\n",
            given.join("firmware")
        ),
    };
    let head = format!("[pool]\npath = {pool:?}\nsize = \"64M\"\n");
    let write = |vms: &str| fs::write(&file, format!("{head}{vms}"));
    let path = file.to_string_lossy();

    let wrong = "\"-smbios\", \"type=11,value=io.systemd.credential:famfs.role=client\"";
    write(&format!("{}args = [{wrong}]\n", vm("kernel")))?;
    session.check("a pool that the guest does not mount ends the start, with the reason", || {
        let output = program.run(&["up", &path, "--timeout", BOOT])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let expected = ["the pool is not mounted", "this VM is master of the pool"];
        ensure!(output.status.code() == Some(1), "{output:?}");
        ensure!(expected.iter().all(|part| said.contains(part)), "{said}");
        ensure!(!program.directory().exists(), "{} is left", program.directory().display());
        Ok(())
    });

    let before = (written(&raw)?, written(&qcow2)?);
    write(&NAMES.map(vm).concat())?;
    let up = program.json(&["up", &path, "--timeout", BOOT, "--json"])?;
    let state = program.state("own")?;
    session.check("all mount the pool, and are told apart by the host's name for them", || {
        for (vm, name) in up["vms"].as_array().context("no VMs")?.iter().zip(NAMES) {
            ensure!(vm["mounted"] == true && vm["transport"] == "shmem", "{up}");
            ensure!(vm["master"] == (name == "kernel"), "{up}");
            let seen = program.shell(
                name,
                "uname -n; findmnt -no FSTYPE /mnt/famfs; . /etc/os-release; echo $ID",
            )?;
            ensure!(seen == format!("{name}\nfamfs\ndebian\n"), "{seen:?}");
        }
        let line = program.shell("firmware", "cat /proc/cmdline; [[ -d /sys/firmware/efi ]]")?;
        ensure!(!line.contains("tsc_early_khz"), "the host added to {line:?}");
        program.shell("bios", "[[ ! -d /sys/firmware/efi ]]")?;
        Ok(())
    });
    let published = || {
        let wait = ["publish", "--wait-all", "--members", "3", "--timeout", "100"];
        let output = program.famfs(&pool, &wait)?;
        ensure!(output.status.success(), "{output:?}");
        Ok(())
    };
    session.check("a new file of the master is seen by the other's watch", || {
        program.shell("kernel", "echo hello > /tmp/new && famfs cp /tmp/new /mnt/famfs/new")?;
        published()?;
        for name in NAMES {
            ensure!(program.shell(name, "cat /mnt/famfs/new")? == "hello\n", "{name}");
        }
        until("ps shows all with everything", LIMIT, || {
            let (report, _) = program.ps()?;
            let vms = [&report["vms"][0], &report["vms"][1], &report["vms"][2]];
            Ok(vms[0]["role"] == "master"
                && vms[1]["role"] == "client"
                && vms.iter().all(|vm| vm["behind"] == 0))
        })
    });
    session.check("the units run, and doctor finds nothing wrong", || {
        // Doctor tests a mapping with a file of that size.
        program.shell("kernel", "famfs creat -s 2m /mnt/famfs/large")?;
        published()?;
        for name in NAMES {
            health::check(name, program.shell(name, health::DOCTOR)?.as_bytes())?;
            let units = "systemctl is-active famfs-agent famfs-attach famfs-watch";
            ensure!(program.shell(name, units)? == "active\nactive\nactive\n", "{name}");
        }
        Ok(())
    });
    session.check("files are copied in and out, and the console is logged", || {
        let (here, back) = (program.pools.path().join("sent"), program.pools.path().join("back"));
        fs::write(&here, "a file of the host")?;
        program.ok(&["cp", &here.to_string_lossy(), "firmware:/srv/sent"])?;
        program.ok(&["cp", "firmware:/srv/sent", &back.to_string_lossy()])?;
        ensure!(fs::read_to_string(back)? == "a file of the host");
        let logs = program.ok(&["logs", "kernel", "--of", "console"])?;
        ensure!(logs.contains("on /mnt/famfs: master"), "{logs}");
        Ok(())
    });
    session.check(
        "what a guest writes to its disk is gone after a stop, and the disk is unchanged",
        || {
            let told = program.ok(&["stop", "firmware"])?;
            ensure!(told.contains("firmware: powered off"), "{told}");
            program.ok(&["start", "firmware", "--timeout", BOOT])?;
            program.shell("firmware", "[[ ! -e /srv/sent && -e /mnt/famfs/new ]]")?;
            ensure!(before == (written(&raw)?, written(&qcow2)?), "a disk image was written");
            Ok(())
        },
    );
    session.check("down powers all off and leaves nothing", || {
        let down = program.json(&["down", "own", "--timeout", "120", "--json"])?;
        println!("# {down}");
        program.check_nothing_left(&state["instance"])
    });
    match LoopDevice::of(&raw) {
        Some(device) => session.check("block devices are its disk and its root", || {
            block_devices(&program, given, &file, device.path())
        }),
        None => session.skip("block devices", "this user can make no loop devices"),
    }
    program.ok(&["pool", "rm", "--force", &pool.to_string_lossy()]).map(drop)
}

/// One VM boots from a block device, which it does not write; another one from a root device of it,
/// with an overlay, which has what the first run of the VM has written.
fn block_devices(program: &Program, given: &Path, file: &Path, device: &Path) -> Result<()> {
    // On storage: it becomes as large as the disk.
    let dir = tempfile::tempdir_in(given).context("no directory for an overlay")?;
    let overlay = dir.path().join("overlay");
    let (kernel, initrd) = (given.join("vmlinuz"), given.join("initrd"));
    let vm = format!("kernel = {kernel:?}\ninitrd = {initrd:?}\nappend = {APPEND:?}\n");
    let text = format!(
        "[pool]\nsize = \"64M\"\n[[vm]]\nname = \"shared\"\nimage = {device:?}\n{vm}\
         [[vm]]\nname = \"kept\"\nimage = {device:?}\nroot = \"ublk\"\noverlay = {overlay:?}\n{vm}"
    );
    fs::write(file, text)?;
    let run = |words: &[&str]| {
        let mut command = program.command(words);
        command.env("VHOST_FAMFS_UBLK", LOOP_ROOT).env("TMPDIR", dir.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = end_of(command.spawn().context("cannot run vhost-famfs")?, words)?;
        ensure!(output.status.success(), "{words:?}: {output:?}");
        Ok(())
    };
    run(&["up", &file.to_string_lossy(), "--timeout", BOOT])?;
    let state = program.state("own")?;
    for name in ["shared", "kept"] {
        program
            .shell(name, "findmnt -no FSTYPE /mnt/famfs; echo kept > /srv/kept; sync /srv/kept")?;
    }
    run(&["stop", "shared", "kept"])?;
    run(&["start", "shared", "kept", "--timeout", BOOT])?;
    ensure!(program.shell("kept", "cat /srv/kept")? == "kept\n", "it is lost");
    program.shell("shared", "[[ ! -e /srv/kept ]]")?;
    run(&["down", "own", "--timeout", "120"])?;
    program.check_nothing_left(&state["instance"])
}

/// When a file was written, and how long it is.
fn written(path: &Path) -> Result<(std::time::SystemTime, u64)> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.modified()?, metadata.len()))
}
