// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cp` and `exec` at several ports, with the stand-in for QEMU in place of a guest.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use libtest_mimic::Trial;
use protocol::exec::PORTS;

use super::guest_copy::{CUT, SHORT};
use super::harmful::harmful;
use super::host::Host;
use super::trial;

pub fn trials() -> Vec<Trial> {
    vec![
        trial("copies_go_in_and_out", copies),
        trial("a_copy_that_fails_leaves_nothing_and_says_why", failures),
        trial("a_hostile_guest_plants_no_file", hostile),
        trial("commands_run_at_once_as_long_as_there_are_ports", ports),
    ]
}

const UP: [&str; 6] = ["up", "--name", "lab", "--vms", "1", "--overcommit"];

/// A file's bytes: several pieces.
fn large() -> Vec<u8> {
    (0..(5 << 20) + 7_u32).map(|number| number.to_le_bytes()[1]).collect()
}

/// A host with a cluster, and directories for both ends of copies.
fn host(qemu: &str) -> Host {
    let host = Host::new();
    let up = host.command(qemu, &UP).output().unwrap();
    assert!(up.status.success(), "{up:?}");
    for dir in ["here", "guest"] {
        fs::create_dir(host.path().join(dir)).unwrap();
    }
    host
}

fn path(host: &Host, name: &str) -> String {
    host.path().join(name).to_str().unwrap().to_owned()
}

fn of_vm(host: &Host, name: &str) -> String {
    format!("vm1:{}", path(host, name))
}

fn done(output: &Output) {
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// Runs a copy that must fail, and returns what it says.
fn failing(host: &Host, qemu: &str, words: &[&str]) -> String {
    let output = host.command(qemu, words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
    assert!(!said.is_empty(), "{words:?} says nothing");
    said
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

fn copies() {
    let mut host = host("qemu");
    let here = host.path().join("here");
    fs::create_dir_all(here.join("d/sub")).unwrap();
    fs::write(here.join("d/sub/large"), large()).unwrap();
    symlink("sub/large", here.join("d/link")).unwrap();
    fs::set_permissions(here.join("d/sub/large"), Permissions::from_mode(0o6640)).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    File::options().write(true).open(here.join("d/sub/large")).unwrap().set_modified(time).unwrap();
    // A directory in, and out again under another name.
    let (d, guest) = (path(&host, "here/d"), of_vm(&host, "guest"));
    done(&host.run(&["cp", "-r", &d, &guest]));
    done(&host.run(&["cp", "-r", &of_vm(&host, "guest/d"), &path(&host, "here/e")]));
    for copy in ["guest/d", "here/e"] {
        let copy = host.path().join(copy);
        let file = copy.join("sub/large");
        let meta = fs::metadata(&file).unwrap();
        assert!(fs::read(&file).unwrap() == large());
        assert_eq!(meta.permissions().mode() & 0o7777, 0o640);
        assert_eq!(meta.modified().unwrap(), time);
        assert_eq!(fs::read_link(copy.join("link")).unwrap(), Path::new("sub/large"));
        assert_eq!(names(&copy), ["link", "sub"]);
    }
    // Streams, of any size.
    let mut into = host.command("qemu", &["cp", "-", &of_vm(&host, "guest/stream")]);
    let mut child = into.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&large()).unwrap();
    assert!(child.wait().unwrap().success());
    let out = host.run(&["cp", &of_vm(&host, "guest/stream"), "-"]);
    done(&out);
    assert!(out.stdout == large());
    // Several files into a directory.
    let files = ["guest/stream", "guest/d/link"].map(|name| of_vm(&host, name));
    done(&host.run(&["cp", &files[0], &files[1], &path(&host, "here")]));
    assert_eq!(names(&here), ["d", "e", "link", "stream"]);
    assert!(fs::symlink_metadata(here.join("link")).unwrap().is_file(), "a named link is followed");
    host.json(&["down", "--json"]);
    host.assert_nothing_left("down");
    host.assert_bystander_unharmed();
}

fn failures() {
    let host = host("qemu");
    let here = path(&host, "here");
    fs::write(host.path().join("here/x"), "x").unwrap();
    let (x, guest) = (path(&host, "here/x"), of_vm(&host, "guest"));
    let fails = |words: &[&str]| failing(&host, "qemu", &[&["cp"], words].concat());
    let said = fails(&[&x, "vm7:/tmp"]);
    assert!(said.contains("cluster lab has no VM vm7; it has vm1"), "{said}");
    let said = fails(&[&x, &of_vm(&host, "guest/none/x")]);
    assert!(said.contains("VM vm1: ") && said.contains("guest/none"), "{said}");
    let said = fails(&[&here, &guest]);
    assert!(said.contains("here: is a directory; use -r"), "{said}");
    let said = fails(&[&of_vm(&host, "guest"), &here]);
    assert!(said.contains("guest: is a directory; use -r"), "{said}");
    let said = fails(&["-", &guest]);
    assert!(said.contains("is a directory; name a file in it"), "{said}");
    let said = fails(&[&path(&host, "here/none"), &x, &guest]);
    assert!(said.contains("not copied: ") && said.contains("none"), "{said}");
    assert_eq!(names(&host.path().join("guest")), ["x"], "what can be copied is");
    let said = fails(&[&of_vm(&host, "guest/x"), "/proc/x"]);
    assert!(said.contains("cannot write /proc/x"), "{said}");
    // The guest's end breaks off.
    for (name, why) in [(SHORT, "cut short"), (CUT, "the VM has ended")] {
        let said = fails(&[&format!("vm1:{name}"), &path(&host, "here/part")]);
        assert!(said.contains(why), "{said}");
        assert_eq!(names(&host.path().join("here")), ["x"], "{name} leaves something");
    }
    let said = fails(&[&x, &guest]);
    assert!(said.contains("VM vm1 of cluster lab is not running"), "{said}");
}

fn hostile() {
    let host = host("qemu-rude");
    let target = path(&host, "here/target");
    let words = ["cp", "-r", "vm1:/etc", &target];
    let said = failing(&host, "qemu-rude", &words);
    assert_eq!(harmful(said.as_bytes()), None, "{}", said.escape_debug());
    // The host ends it at the first such name, or has heard the guest's words before.
    assert!(said.contains("link/planted") || said.contains("pwned"), "{said}");
    assert_eq!(names(&host.path().join("here")), ["target"]);
    assert_eq!(names(&host.path().join("here/target")), ["link"]);
    let words = ["cp", &path(&host, "image/vmlinux"), "vm1:/tmp"];
    let said = failing(&host, "qemu-rude", &words);
    assert!(said.contains("pwned"), "it tells what the guest said: {said}");
    assert_eq!(harmful(said.as_bytes()), None, "{}", said.escape_debug());
}

fn ports() {
    let host = host("qemu");
    let run = || host.run(&["exec", "--timeout", "1", "vm1", "--", "true"]);
    let wait = || host.command("qemu", &["exec", "vm1", "--", "wait"]).spawn().unwrap();
    let mut waiting: Vec<_> = (1..PORTS - 1).map(|_| wait()).collect();
    let locked = || {
        let dir = host.clusters().join("lab/vm1");
        names(&dir).iter().filter(|name| name.ends_with(".lock")).count()
    };
    let end = Instant::now() + Duration::from_secs(60);
    while locked() < PORTS - 2 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    done(&run());
    waiting.push(wait());
    while run().status.success() && Instant::now() < end {}
    let busy = run();
    let said = String::from_utf8_lossy(&busy.stderr);
    assert_eq!(busy.status.code(), Some(125), "{said}");
    assert!(said.contains("8 commands are running in it"), "{said}");
    // The launcher has a port of its own.
    assert_eq!(host.json(&["ps", "--json"])["clusters"][0]["vms"][0]["status"], "running");
    let mut one = waiting.remove(0);
    one.kill().unwrap();
    one.wait().unwrap();
    done(&run());
    for mut child in waiting {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
