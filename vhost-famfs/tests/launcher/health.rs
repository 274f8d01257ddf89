// SPDX-License-Identifier: Apache-2.0 OR MIT
//! VMs with a health command, which the stand-in for a guest runs on the host.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use super::host::Host;
use super::schema::problem;
use super::trial;

/// How long anything may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

pub fn trials() -> Vec<Trial> {
    vec![
        trial("a_vm_that_does_not_get_healthy_is_not_up", never),
        trial("ps_names_vms_that_are_not_healthy", ps_tells),
        trial("vms_wait_for_the_health_of_those_that_they_depend_on", order),
    ]
}

/// A cluster file whose VM `a` is healthy while the file exists; returns both.
fn cluster(host: &Host, more: &str) -> (String, PathBuf) {
    let well = host.path().join("well");
    let health = format!("test -e {}", well.display());
    let text =
        format!("[pool]\nsize = \"64M\"\n[[vm]]\nname = \"a\"\nhealth = {}\n{more}", json!(health));
    let file = host.path().join("lab.toml");
    fs::write(&file, text).unwrap();
    (file.to_str().unwrap().to_owned(), well)
}

fn ps(host: &Host) -> Value {
    let output = host.run(&["ps", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(problem("ps", &report), None);
    report["clusters"][0].clone()
}

fn remove(file: &Path) {
    fs::remove_file(file).unwrap();
}

fn never() {
    let host = Host::new();
    let (file, well) = cluster(&host, "");
    let up = host.run(&["up", &file, "--overcommit", "--timeout", "3"]);
    let said = String::from_utf8(up.stderr).unwrap();
    assert_eq!(up.status.code(), Some(1), "{said}");
    let expected = format!(
        "VM a: the guest is up, but its health command did not succeed within 3s: test -e {}: \
         exit code 1; see `vhost-famfs logs`, or allow more time with --timeout",
        well.display()
    );
    assert!(said.contains(&expected), "{said}");
    host.assert_nothing_left("a start of a VM that is not healthy");
    // The same for a VM of a cluster that runs.
    File::create(&well).unwrap();
    assert!(host.run(&["up", &file, "--overcommit"]).status.success());
    remove(&well);
    let restart = host.run(&["restart", "a", "--timeout", "3"]);
    let said = String::from_utf8(restart.stderr).unwrap();
    assert_eq!(restart.status.code(), Some(1), "{said}");
    assert!(said.contains(&expected), "{said}");
    File::create(&well).unwrap();
    assert!(host.run(&["start", "a"]).status.success());
    assert!(host.run(&["down"]).status.success());
    host.assert_nothing_left("down");
}

fn ps_tells() {
    let host = Host::new();
    let (file, well) = cluster(&host, "[[vm]]\nname = \"b\"\n");
    File::create(&well).unwrap();
    let dry = host.run(&["up", &file, "--overcommit", "--dry-run"]);
    let plan = String::from_utf8(dry.stdout).unwrap();
    assert!(plan.contains("healthy:      a when \"test -e "), "{plan}");
    assert!(host.run(&["up", &file, "--overcommit"]).status.success());
    let report = ps(&host);
    assert_eq!(report["status"], "up");
    assert_eq!(report["vms"][0]["health"], json!({"healthy": true, "said": null}));
    assert_eq!(report["vms"][1]["health"], Value::Null);
    remove(&well);
    let report = ps(&host);
    assert_eq!(report["status"], "degraded");
    assert_eq!(report["vms"][0]["health"], json!({"healthy": false, "said": "exit code 1"}));
    let table = host.run(&["ps"]);
    let text = String::from_utf8(table.stdout).unwrap();
    assert_eq!(table.status.code(), Some(3), "{text}");
    assert!(text.contains("a: not healthy: its health command failed: exit code 1\n"), "{text}");
    // Another command is no reason to start a VM again.
    let pid = report["vms"][0]["pid"].clone();
    let changed = fs::read_to_string(&file).unwrap().replace("test -e", "test ! -e");
    fs::write(&file, changed).unwrap();
    assert!(host.run(&["up", &file, "--overcommit"]).status.success());
    let report = ps(&host);
    assert_eq!((&report["status"], &report["vms"][0]["pid"]), (&json!("up"), &pid));
    assert!(host.run(&["down"]).status.success());
}

fn order() {
    let host = Host::new();
    let (file, well) = cluster(&host, "[[vm]]\nname = \"b\"\ndepends-on = [\"a\"]\n");
    let mut up = host.command("qemu", &["up", &file, "--overcommit"]);
    let mut up = up.stdout(Stdio::null()).spawn().unwrap();
    let status = |vm: usize| ps(&host)["vms"][vm]["status"].clone();
    let begun = Instant::now();
    while host.state("lab").is_none_or(|state| state["vms"][0]["qemu"].is_null()) {
        assert!(begun.elapsed() < LIMIT, "a does not start");
        thread::sleep(Duration::from_millis(10));
    }
    // Long enough for the health command to fail.
    thread::sleep(Duration::from_secs(2));
    assert_eq!((status(0), status(1)), (json!("running"), json!("not-started")));
    File::create(&well).unwrap();
    assert!(up.wait().unwrap().success());
    assert_eq!((status(0), status(1)), (json!("running"), json!("running")));
    assert!(host.run(&["down"]).status.success());
}
