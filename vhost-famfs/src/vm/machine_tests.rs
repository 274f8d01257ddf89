// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests that need no guest; the others use real VMs.
use super::*;
use crate::vm::{Image, VmPaths};
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

/// A directory with an image and a program that stands in for QEMU.
fn config(dir: &TempDir, qemu: &str) -> VmConfig {
    let dir = dir.path();
    for file in ["vmlinux", "initrd.cpio", "root.erofs"] {
        fs::write(dir.join(file), "").unwrap();
    }
    let program = dir.join("qemu");
    fs::write(&program, format!("#!/bin/sh\n{qemu}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let image = Image::open(dir).unwrap();
    VmConfig::new("vm1", program, image, VmPaths::new("vm1", dir, dir))
}

#[test]
fn what_qemu_said_is_in_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(
        &dir,
        "echo last words >\"$(dirname \"$0\")/vm1.console\"; echo no such device >&2; exit 3",
    );
    let error = Vm::start(config).unwrap_err().to_string();
    for part in ["VM vm1: QEMU ended (exit status: 3)", "\n  no such device\n", "\n  last words"] {
        assert!(error.contains(part), "no {part:?} in {error}");
    }
    assert!(!dir.path().join("vm1").exists(), "the runtime directory is removed");
    assert!(dir.path().join("vm1.console").exists(), "the console log is kept");
}

#[test]
fn an_old_qemu_cannot_serve_a_back_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir, "echo QEMU emulator version 9.2.0");
    config.pools = vec![PoolDevice::Shmem { socket: dir.path().join("pool.sock") }];
    let error = Vm::start(config).unwrap_err().to_string();
    assert!(error.contains("is QEMU 9.2, but a pool served by a back-end needs 11.1"), "{error}");
}

#[test]
fn a_pool_that_is_missing_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir, "exit 0");
    let path = dir.path().join("pool");
    config.pools = vec![PoolDevice::Pmem { path: path.clone(), size: 2 << 20, readonly: false }];
    let error = Vm::start(config).unwrap_err().to_string();
    assert_eq!(error, format!("VM vm1: cannot use the pool {}", path.display()));
    assert!(!path.exists());
}

#[test]
fn a_runtime_directory_in_use_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir, "exit 0");
    fs::create_dir(&config.paths.runtime_dir).unwrap();
    let error = Vm::start(config).unwrap_err().to_string();
    assert!(error.starts_with("VM vm1: cannot create the directory"), "{error}");
    assert!(dir.path().join("vm1").exists());
}
