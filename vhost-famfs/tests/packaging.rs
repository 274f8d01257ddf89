// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files for a host's service manager and for the registry of its VMM.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it is")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value};

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn capabilities(program: &Path) -> Value {
    let output = Command::new(program).arg("--print-capabilities").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// `VhostUserBackend` in QEMU's docs/interop/vhost-user.json: description, type and binary are
/// required, tags are optional, and nothing else is allowed. Its list of types has none for
/// virtio-pmem.
#[test]
fn the_description_for_the_registry_is_what_the_program_is() {
    let text = fs::read(shipped("share/qemu/vhost-user/50-vhost-famfs.json")).unwrap();
    let description: Map<String, Value> = serde_json::from_slice(&text).unwrap();
    for required in ["description", "type", "binary"] {
        assert!(description[required].is_string(), "{required}");
    }
    let known = ["description", "type", "binary", "tags"];
    assert!(description.keys().all(|key| known.contains(&key.as_str())), "{description:?}");
    let binary = Path::new(description["binary"].as_str().unwrap());
    assert!(binary.is_absolute());

    // The file that a package installs under that name.
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join(binary.file_name().unwrap());
    symlink(env!("CARGO_BIN_EXE_vhost-famfs"), &program).unwrap();
    let capabilities = capabilities(&program);
    assert_eq!(capabilities["type"], description["type"]);
    assert!(capabilities["features"].as_array().unwrap().is_empty());
}

/// The units with a name filled in and the program of this build, checked by systemd itself.
#[test]
fn systemd_takes_the_units() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["", "-ublk"].map(|kind| {
        [format!("vhost-famfs{kind}@vm1.socket"), format!("vhost-famfs{kind}@vm1.service")]
    });
    let install = |name: String| {
        let unit = fs::read_to_string(shipped("units").join(name.replace("vm1", ""))).unwrap();
        let installed = unit.replace("/usr/bin/vhost-famfs", env!("CARGO_BIN_EXE_vhost-famfs"));
        let path = dir.path().join(name);
        fs::write(&path, installed).unwrap();
        path
    };
    let names: Vec<_> = names.into_iter().flatten().map(install).collect();
    let mut verify = Command::new("systemd-analyze");
    let output = verify.args(["verify", "--man=no", "--recursive-errors=no"]).args(&names).output();
    let output = output.expect("systemd-analyze checks the units; install the package systemd");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    assert!(!complaints.contains(&dir.path().display().to_string()), "{complaints}");
}

/// Whoever can connect to a back-end can access the pool.
#[test]
fn sockets_are_for_their_owner_only() {
    let units = fs::read_dir(shipped("units")).unwrap().map(|entry| entry.unwrap().path());
    let sockets: Vec<_> =
        units.filter(|path| path.extension().is_some_and(|end| end == "socket")).collect();
    assert!(sockets.len() >= 2, "{sockets:?}");
    for socket in sockets {
        let unit = fs::read_to_string(&socket).unwrap();
        assert!(unit.contains("\nSocketMode=0600\n"), "{}", socket.display());
    }
}

/// Every option on the service's command line exists in the program.
#[test]
fn the_service_runs_the_program_as_it_is() {
    let unit = fs::read_to_string(shipped("units/vhost-famfs@.service")).unwrap();
    let command = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let words: Vec<_> = command.split_whitespace().skip(1).collect();
    assert_eq!(words, ["device", "--pool", "${POOL}", "$OPTIONS"]);
    let options = unit.lines().find_map(|line| line.strip_prefix("#   OPTIONS=")).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_vhost-famfs"));
    program.args(["device", "--pool", "missing"]).args(options.split_whitespace());
    let output = program.envs([("LISTEN_FDS", "1"), ("LISTEN_PID", "1")]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "not a wrong command line: {stderr}");
    assert!(stderr.contains("LISTEN_PID"), "{stderr}");
}
