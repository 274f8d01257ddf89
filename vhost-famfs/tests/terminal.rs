// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Text that others chose must not control the terminal: file names, a cluster's state, another
//! program's output.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it is")]

#[path = "support/harmful.rs"]
mod harmful;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use harmful::harmful;

/// Control characters of all kinds, and bytes that are not text.
const HOSTILE: &[u8] =
    b"a\x1b]0;pwned\x07\x1b[2J\r\x08\x7f\xc2\x9b31m\xe2\x80\xae\xe2\x81\xa6\x9bz\xff";

/// A directory for clusters, with one whose state contains hostile names.
fn runtime(dir: &Path) {
    let hostile = String::from_utf8_lossy(HOSTILE).into_owned();
    let cluster = dir.join("vhost-famfs/lab");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&cluster).unwrap();
    let state = serde_json::json!({ "version": hostile, "name": hostile, "vms": [hostile] });
    fs::write(cluster.join("state.json"), state.to_string()).unwrap();
    let other = dir.join("vhost-famfs").join(OsStr::from_bytes(HOSTILE));
    fs::DirBuilder::new().mode(0o700).create(other).unwrap();
}

#[test]
fn every_command_tells_of_hostile_names_without_obeying_them() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    runtime(dir);
    let name = OsStr::from_bytes(HOSTILE);
    let (pool, other) = (dir.join(name), dir.join("text"));
    let path = pool.as_os_str();
    fs::write(&other, HOSTILE).unwrap();
    let qemu = dir.join("qemu");
    let says = [b"#!/bin/sh\ncat \"$0\".says; cat \"$0\".says >&2; exit 1\n".as_slice()].concat();
    fs::write(&qemu, says).unwrap();
    fs::write(dir.join("qemu.says"), [b"QEMU emulator version ", HOSTILE, b"\n"].concat()).unwrap();
    fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755)).unwrap();
    let bad_toml = dir.join("bad.toml");
    fs::write(
        &bad_toml,
        [b"[[vm]]\nname = \"x\"\n\"", "é\u{9b}\u{202e}".as_bytes(), b"\" = 1\n"].concat(),
    )
    .unwrap();
    let word = OsStr::new;
    let lines: Vec<Vec<&OsStr>> = vec![
        vec![word("pool"), word("create"), path, word("--size"), word("16M"), word("--mkfs")],
        vec![word("pool"), word("create"), path, word("--size"), word("16M")],
        vec![word("pool"), word("create"), path, word("--size"), name],
        vec![word("pool"), word("inspect"), path],
        vec![word("pool"), word("inspect"), path, word("--json")],
        vec![word("pool"), word("list"), dir.as_os_str()],
        vec![word("pool"), word("list"), dir.as_os_str(), word("--json")],
        vec![word("pool"), word("resize"), path, word("--size"), word("32M")],
        vec![word("pool"), word("rm"), path],
        vec![word("pool"), word("rm"), word("--force"), path],
        vec![word("pool"), word("rm"), path],
        vec![word("ps")],
        vec![word("ps"), word("--json")],
        vec![word("ps"), name],
        vec![word("exec"), word("--cluster"), word("lab"), word("vm1"), word("--"), name],
        vec![word("exec"), word("--cluster"), name, word("vm1"), word("--"), word("true")],
        vec![word("logs"), word("--cluster"), word("lab")],
        vec![word("console"), word("--cluster"), word("lab"), word("vm1")],
        vec![word("down"), word("lab")],
        vec![word("up"), path],
        vec![word("up"), bad_toml.as_os_str()],
        vec![word("up"), word("--vms"), word("1"), word("--share"), path],
        vec![word("up"), word("--vms"), word("1"), word("--qemu"), qemu.as_os_str()],
        vec![word("doctor"), word("--qemu"), qemu.as_os_str()],
        vec![word("doctor"), word("--json"), word("--qemu"), qemu.as_os_str()],
        vec![word("device"), word("--pool"), path, word("--socket-path"), path],
        vec![word("device"), word("--pool"), other.as_os_str(), word("--socket-path"), path],
        vec![name],
        vec![word("ublk"), word("del"), name],
    ];
    let mut wrong = Vec::new();
    for line in &lines {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-famfs"));
        let command = command.args(line).env("XDG_RUNTIME_DIR", dir).stdin(Stdio::null());
        let output = command.output().unwrap();
        for (stream, bytes) in [("output", &output.stdout), ("errors", &output.stderr)] {
            if let Some(found) = harmful(bytes) {
                wrong.push(format!(
                    "{line:?}: {stream}: {found} in {:?}",
                    bytes.escape_ascii().to_string()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_control_character_is_noticed() {
    assert!(harmful(HOSTILE).is_some() && harmful(b"a\nb\t").is_none());
    for bad in ["\u{1b}", "\u{7f}", "\u{9b}", "\u{202e}", "\u{2066}", "\r"] {
        assert!(harmful(bad.as_bytes()).is_some(), "{bad:?}");
    }
}
