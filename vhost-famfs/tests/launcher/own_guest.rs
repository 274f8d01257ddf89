// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Disks of users' own guests, with and without an agent.

use std::fs;

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
