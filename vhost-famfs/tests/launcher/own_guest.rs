// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Disks of users' own guests, with and without an agent.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;

use super::host::Host;
use super::loop_device::LoopDevice;
use super::trial;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("an_own_guest_lives_like_an_appliance", life),
        trial("an_own_guest_without_an_agent_is_told_what_it_lacks", no_agent),
        trial("a_block_device_is_a_disk_whatever_it_holds", block_device)
            .with_ignored_flag(!has_loop_devices()),
        trial("a_root_device_has_the_writes_of_its_vm_and_ends_with_the_cluster", root_device)
            .with_ignored_flag(!has_loop_devices()),
        trial("a_root_device_without_a_driver_starts_nothing", no_driver)
            .with_ignored_flag(Path::new("/dev/ublk-control").exists()),
    ]
}

/// Whether this user can make loop devices.
fn has_loop_devices() -> bool {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(4096).unwrap();
    LoopDevice::of(file.path()).is_some()
}

/// Writes a disk and a cluster file with two VMs on it; returns the path of the file.
fn cluster(host: &Host) -> String {
    let mut disk = vec![0; 1 << 20];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    fs::write(host.path().join("disk"), &disk).unwrap();
    fs::write(host.path().join("vmlinuz"), "k").unwrap();
    let file = host.path().join("own.toml");
    let text = "[pool]\nsize = \"16M\"\n[[vm]]\nname = \"a\"\nimage = \"disk\"\n\
                [[vm]]\nname = \"b\"\nimage = \"disk\"\nkernel = \"vmlinuz\"\n\
                append = \"root=/dev/vda1\"\n";
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

fn life() {
    let mut host = Host::new();
    let file = cluster(&host);
    let before = fs::read(host.path().join("disk")).unwrap();
    let up = host.json(&["up", &file, "--overcommit", "--json"]);
    assert_eq!(up["vms"][1]["mounted"], true, "{up}");
    let lines = host.processes();
    let qemu = |name: &str| {
        let of_name = |line: &&(i32, String)| line.1.contains(&format!(" -name {name} "));
        lines.iter().find(of_name).unwrap().1.clone()
    };
    let disk = format!(
        "snapshot=on,discard=unmap,driver=raw,file.driver=file,file.filename={}/disk ",
        host.path().display()
    );
    assert!(qemu("a").contains(&disk) && !qemu("a").contains(" -kernel "), "{}", qemu("a"));
    assert!(qemu("b").contains(&disk) && qemu("b").contains(" root=/dev/vda1 "), "{}", qemu("b"));
    // A stopped VM is started again from what the state says of it.
    host.json(&["stop", "b", "--json"]);
    // Another image by now, which would have QEMU open a file of the host.
    let mut other = [&b"QFI\xfb\0\0\0\x02\0\0\0\0\0\0\0\x48\0\0\0\x0b"[..], &[0; 52]].concat();
    other.extend(b"/etc/shadow");
    fs::write(host.path().join("disk"), other).unwrap();
    let refused = host.run(&["start", "b"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && said.contains("backing file"), "{said}");
    fs::write(host.path().join("disk"), &before).unwrap();
    host.json(&["start", "b", "--json"]);
    let same = host.run(&["up", &file, "--overcommit"]);
    let same = String::from_utf8(same.stdout).unwrap();
    assert!(same.contains("cluster own runs as asked; nothing to do"), "{same}");
    host.json(&["down", "--json"]);
    host.assert_nothing_left("down");
    assert_eq!(fs::read(host.path().join("disk")).unwrap(), before);
    host.assert_bystander_unharmed();
}

fn no_agent() {
    let mut host = Host::new();
    let file = cluster(&host);
    let mut up = host.command("qemu-mute", &["up", &file, "--overcommit", "--timeout", "1"]);
    let output = up.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in [
        "its logs are in ",
        "no agent in the guest has answered within 1s",
        "/disk needs the package vhost-famfs-guest",
        ".console, its console",
        "the stand-in for a guest is up",
    ] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    let logs = host.path().join("run/vhost-famfs-logs/own");
    assert!(logs.join("a.console").exists(), "{said}");
    // An appliance has its agent, so that is not what it lacks.
    let words = ["up", "--vms", "1", "--overcommit", "--timeout", "1"];
    let said = host.command("qemu-mute", &words).output().unwrap().stderr;
    let said = String::from_utf8(said).unwrap();
    let expected = "waiting for the guest's agent: not finished after 1s";
    assert!(said.contains(expected) && !said.contains("vhost-famfs-guest"), "{said}");
    host.assert_nothing_left("a start that failed");
    host.assert_bystander_unharmed();
}

fn block_device() {
    let mut host = Host::new();
    // With it in a file, QEMU would open another file of the host.
    let mut content = [&b"QFI\xfb\0\0\0\x02\0\0\0\0\0\0\0\x48\0\0\0\x0b"[..], &[0; 52]].concat();
    content.extend(b"/etc/shadow");
    content.resize(4096, 0);
    let disk = host.path().join("disk");
    fs::write(&disk, &content).unwrap();
    let device = LoopDevice::of(&disk).unwrap();
    let file = host.path().join("device.toml");
    let write = |device: &LoopDevice| {
        let path = device.path();
        let text = format!("[pool]\nsize = \"16M\"\n[[vm]]\nname = \"a\"\nimage = {path:?}\n");
        fs::write(&file, text).unwrap();
    };
    let words = ["up", file.to_str().unwrap(), "--overcommit", "--json"];
    write(&device);
    let up = host.json(&words);
    assert_eq!(up["vms"][0]["mounted"], true, "{up}");
    let line = format!(
        "snapshot=on,discard=unmap,driver=raw,file.driver=host_device,file.filename={} ",
        device.path().display()
    );
    let lines = host.processes();
    assert!(lines.iter().any(|(_, words)| words.contains(&line)), "no {line} in {lines:#?}");
    host.json(&["down", "--json"]);
    host.assert_nothing_left("down");
    assert_eq!(fs::read(&disk).unwrap(), content);
    // A device without a disk in it.
    fs::write(&disk, "").unwrap();
    let empty = LoopDevice::of(&disk).unwrap();
    write(&empty);
    let refused = host.run(&words);
    let said = String::from_utf8(refused.stderr).unwrap();
    let expected = "this block device has a size of 0";
    assert!(refused.status.code() == Some(1) && said.contains(expected), "{said}");
    host.assert_bystander_unharmed();
}

/// Writes the cluster of [`cluster`] with root devices: of `a` with an overlay, of `b` without.
fn cluster_on_devices(host: &Host) -> String {
    let file = cluster(host);
    let text = fs::read_to_string(&file).unwrap();
    let root = "root = \"ublk\"\n";
    let text = text.replace("name = \"a\"\n", &format!("name = \"a\"\n{root}overlay = \"kept\"\n"));
    fs::write(&file, text.replace("name = \"b\"\n", &format!("name = \"b\"\n{root}"))).unwrap();
    file
}

/// The program with loop devices in place of ublk's.
fn with_loop_devices(host: &Host, qemu: &str, words: &[&str]) -> Command {
    let stand_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/loop-root.sh");
    let mut command = host.command(qemu, words);
    command.env("VHOST_FAMFS_UBLK", stand_in).env("TMPDIR", host.path());
    command
}

/// The root device that a VM has, by QEMU's command line.
fn device_of(host: &Host, vm: &str) -> PathBuf {
    let lines = host.processes();
    let of_vm = |line: &&(i32, String)| line.1.contains(&format!(" -name {vm} "));
    let line = &lines.iter().find(of_vm).unwrap().1;
    let mode = "id=disk0,cache.direct=on,discard=unmap,driver=raw,file.driver=host_device,";
    assert!(line.contains(mode), "{line}");
    let (_, rest) = line.split_once("file.filename=").unwrap();
    rest.split(' ').next().unwrap().into()
}

/// Writes to a device as a guest would, or reads from it.
fn write(device: &Path, text: &[u8]) {
    let file = OpenOptions::new().write(true).open(device).unwrap();
    file.write_all_at(text, 4096).unwrap();
    file.sync_all().unwrap();
}

fn read(device: &Path) -> Vec<u8> {
    let mut found = vec![0; 4];
    fs::File::open(device).unwrap().read_exact_at(&mut found, 4096).unwrap();
    found
}

/// How many loop devices have a file of this host.
fn loop_devices(host: &Host) -> usize {
    let mut list = Command::new("losetup");
    list.args(["--list", "--noheadings", "--output", "BACK-FILE"]);
    let listed = String::from_utf8(list.output().unwrap().stdout).unwrap();
    listed.lines().filter(|line| line.contains(host.path().to_str().unwrap())).count()
}

/// The kernel removes a loop device when the last one who has it open closes it, which may be
/// somebody who looks at all devices, as udev does.
fn no_loop_device(host: &Host) {
    let end = Instant::now() + Duration::from_secs(30);
    while loop_devices(host) > 0 {
        assert!(Instant::now() < end, "{} loop devices are left", loop_devices(host));
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn succeeds(output: &Output) {
    assert!(output.status.success(), "{output:?}");
}

fn root_device() {
    let mut host = Host::new();
    let file = cluster_on_devices(&host);
    let before = fs::read(host.path().join("disk")).unwrap();
    let up = ["up", file.as_str(), "--overcommit"];
    let run = |words: &[&str]| with_loop_devices(&host, "qemu", words).output().unwrap();
    succeeds(&run(&up));
    let (a, b) = (device_of(&host, "a"), device_of(&host, "b"));
    assert_ne!(a, b);
    write(&a, b"kept");
    write(&b, b"lost");
    // Another cluster cannot have the overlay meanwhile.
    let other = host.path().join("other.toml");
    fs::copy(&file, &other).unwrap();
    let refused = run(&["up", other.to_str().unwrap(), "--overcommit"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    for part in ["VM a", "no root device of", "/kept: in use by another device"] {
        assert!(refused.status.code() == Some(1) && said.contains(part), "no {part:?} in {said}");
    }
    assert_eq!(read(&a), b"kept", "the one that runs is unharmed");
    // What is written with a name is there after a stop, and all else is gone.
    succeeds(&run(&["stop", "a", "b"]));
    no_loop_device(&host);
    succeeds(&run(&["start", "a", "b"]));
    assert_eq!(read(&device_of(&host, "a")), b"kept");
    assert_eq!(read(&device_of(&host, "b")), [0; 4]);
    // The process of a device was killed: its VM is started again with another.
    let servers = host.processes();
    let of_b = servers.iter().find(|(_, line)| line.contains("/own/b.ublk")).unwrap();
    let killed = rustix::process::Pid::from_raw(of_b.0).unwrap();
    rustix::process::kill_process(killed, rustix::process::Signal::KILL).unwrap();
    succeeds(&run(&["restart", "b"]));
    succeeds(&run(&["down"]));
    host.assert_nothing_left("down");
    no_loop_device(&host);
    assert_eq!(fs::read(host.path().join("disk")).unwrap(), before);
    // A start that fails leaves none.
    let words = [&up[..], &["--timeout", "1"]].concat();
    let failed = with_loop_devices(&host, "qemu-mute", &words).output().unwrap();
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    host.assert_nothing_left("a start that failed");
    no_loop_device(&host);
    // Neither does `down` after a launcher that was killed.
    let mut launcher = with_loop_devices(&host, "qemu-mute", &up).spawn().unwrap();
    let is_there = |line: &(i32, String)| line.1.contains(" -name b ");
    while !host.processes().iter().any(is_there) {
        assert!(launcher.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    succeeds(&run(&["down", "--timeout", "1"]));
    host.assert_nothing_left("down after a kill");
    no_loop_device(&host);
    host.assert_bystander_unharmed();
}

fn no_driver() {
    let mut host = Host::new();
    let file = cluster_on_devices(&host);
    let refused = host.run(&["up", &file, "--overcommit"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    for part in ["own.toml:5:", "VM a: root = \"ublk\"", "modprobe ublk_drv"] {
        assert!(refused.status.code() == Some(1) && said.contains(part), "no {part:?} in {said}");
    }
    host.assert_nothing_left("a start without a driver");
    host.assert_bystander_unharmed();
}
