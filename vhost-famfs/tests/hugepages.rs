// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pools in huge pages, in the test's own hugetlbfs. Skipped if none can be reserved, which needs
//! root.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it is")]

#[path = "support/huge_pages.rs"]
mod huge_pages;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use famfs::media::{Media, PoolFile};
use famfs::sys::dax::Access;
use huge_pages::{HugePages, NR_HUGEPAGES};

const MIB: u64 = 1 << 20;

fn vhost_famfs(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vhost-famfs")).args(arguments).output().unwrap()
}

fn report(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn main() {
    let Some(pages) = HugePages::reserve(24).unwrap() else {
        println!("pools in huge pages ... skipped: no 24 huge pages of 2 MiB can be reserved");
        println!("test result: ok. 0 passed; 0 failed; 1 ignored");
        return;
    };
    lives_in_huge_pages(&pages);
    println!("test pools in huge pages ... ok");
    println!("test result: ok. 1 passed; 0 failed; 0 ignored");
}

fn lives_in_huge_pages(pages: &HugePages) {
    let path = pages.path().join("pool");
    let pool = path.to_str().unwrap();
    let create = |size| vhost_famfs(&["pool", "create", pool, "--size", size, "--mkfs", "--json"]);

    // More than there are.
    let refused = create("1T");
    let message = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1));
    assert!(message.contains("needs 524288 huge pages of 2048 KiB"), "{message}");
    let command = message.split_once("reserve them with\n").unwrap().1.trim();
    assert!(command.starts_with("echo ") && command.ends_with(NR_HUGEPAGES), "{command}");
    assert!(!path.exists());
    let message = refused_cluster(&path);
    assert!(message.contains("needs 524288 huge pages of 2048 KiB"), "{message}");

    let made = report(&create("32M"));
    assert_eq!((&made["kind"], &made["view"]), (&"hugetlbfs".into(), &"devdax".into()));
    assert_eq!(made["page_size"], 2 * MIB);
    assert_eq!(made["allocated"], 32 * MIB, "all pages are taken, so no VM can run out of them");
    assert_eq!(made["famfs"]["files"], 0);
    assert!(made["famfs"]["problem"].is_null(), "{made}");

    writes_without_a_guest(&path);

    let grown = report(&vhost_famfs(&["pool", "resize", pool, "--size", "40M", "--json"]));
    assert_eq!(grown["allocated"], 40 * MIB);
    let too_much = vhost_famfs(&["pool", "resize", pool, "--size", "1T"]);
    let message = String::from_utf8_lossy(&too_much.stderr);
    assert!(message.contains("huge pages of 2048 KiB"), "{message}");
    let shrunk = report(&vhost_famfs(&["pool", "resize", pool, "--size", "32M", "--json"]));
    assert_eq!(shrunk["allocated"], 32 * MIB);
    assert_eq!(shrunk["famfs"]["uuid"], made["famfs"]["uuid"]);

    let listed = report(&vhost_famfs(&["pool", "list", "--json"]));
    let found = listed["pools"].as_array().unwrap().iter().any(|report| report["path"] == pool);
    assert!(found, "a hugetlbfs mount is a usual place: {listed}");

    assert_eq!(vhost_famfs(&["pool", "rm", pool]).status.code(), Some(1), "it holds a famfs");
    assert!(vhost_famfs(&["pool", "rm", pool, "--force"]).status.success());
    assert!(!path.exists());
}

/// The error of `up` for a cluster on a pool of 1 TiB, before it creates anything.
fn refused_cluster(pool: &Path) -> String {
    let dir = tempfile::tempdir().unwrap();
    for name in ["vmlinux", "initrd.cpio", "root.erofs"] {
        std::fs::write(dir.path().join(name), "").unwrap();
    }
    let qemu = dir.path().join("qemu");
    std::fs::write(&qemu, "#!/bin/sh\necho QEMU emulator version 11.1.3\n").unwrap();
    std::fs::set_permissions(&qemu, PermissionsExt::from_mode(0o755)).unwrap();
    let mut up = Command::new(env!("CARGO_BIN_EXE_vhost-famfs"));
    up.args(["up", "--vms", "1", "--size", "1T", "--pool"]).arg(pool).arg("--qemu").arg(&qemu);
    up.arg("--image").arg(dir.path()).env("XDG_RUNTIME_DIR", dir.path());
    let refused = up.output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(!pool.exists() && !dir.path().join("vhost-famfs").exists(), "something was made");
    String::from_utf8_lossy(&refused.stderr).into_owned()
}

/// hugetlbfs has no write(2), so the tools must not need it.
fn writes_without_a_guest(pool: &Path) {
    let at = 16 * MIB - 3;
    let writer = PoolFile::open(pool, Access::Write).unwrap();
    writer.write_at(at, b"across a page").unwrap();
    writer.persist(at, 13).unwrap();
    let reader = PoolFile::open(pool, Access::Read).unwrap();
    let mut found = [0; 13];
    reader.read_at(at, &mut found).unwrap();
    assert_eq!(&found, b"across a page");
    assert!(writer.write_at(writer.len() - 1, b"12").is_err(), "behind the end");
}
