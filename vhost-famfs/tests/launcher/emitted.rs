// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `ps`, `exec`, `logs` and `down` work with a cluster started by a script of `up --emit`.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::host::Host;
use super::schema::problem;
use super::trial;

/// How long a script may take for anything.
const LIMIT: Duration = Duration::from_secs(60);

pub fn trials() -> Vec<Trial> {
    vec![
        trial("an_emitted_cluster_is_one_for_the_other_commands", commands),
        trial("an_emitted_cluster_goes_with_its_script", interrupted),
        trial("a_kept_pool_outlives_the_next_cluster", kept),
    ]
}

/// The script of a cluster.
fn emitted(host: &Host, more: &[&str]) -> PathBuf {
    let words = ["up", "--name", "lab", "--vms", "2", "--overcommit", "--dry-run"];
    let form = ["--emit", "qemu", "--output", "new/forms", "--image", "image"];
    let mut command = host.command("qemu", &[&words[..], &form, more].concat());
    let output = command.current_dir(host.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!host.clusters().exists(), "a dry run makes nothing");
    host.path().join("new/forms/lab.sh")
}

/// Starts a script, which calls both programs.
fn run(script: &Path) -> Child {
    run_with(script, &[])
}

/// The same, with environment variables.
pub fn run_with(script: &Path, environment: &[(&str, OsString)]) -> Child {
    let famfs = Path::new(env!("CARGO_BIN_EXE_vhost-famfs")).with_file_name("famfs");
    assert!(famfs.exists(), "no {}: build it with `cargo build -p famfs-cli`", famfs.display());
    let mut command = Command::new("sh");
    command.arg(script).stdin(Stdio::null()).stderr(Stdio::piped());
    command.envs(environment.iter().cloned());
    command.spawn().unwrap()
}

/// Waits until everything in a script's cluster is running.
pub fn wait_up(host: &Host, script: &mut Child) -> Value {
    let end = Instant::now() + LIMIT;
    loop {
        let output = host.run(&["ps", "lab", "--json"]);
        if output.status.success() {
            return serde_json::from_slice(&output.stdout).unwrap();
        }
        if let Some(status) = script.try_wait().unwrap() {
            let mut told = String::new();
            script.stderr.take().unwrap().read_to_string(&mut told).unwrap();
            panic!("the script ended with {status}: {told}");
        }
        assert!(Instant::now() < end, "{output:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn commands() {
    let mut host = Host::new();
    let script = emitted(&host, &[]);
    let mut child = run(&script);
    let ps = wait_up(&host, &mut child);
    assert_eq!(problem("ps", &ps), None);
    let cluster = &ps["clusters"][0];
    for vm in cluster["vms"].as_array().unwrap() {
        assert_eq!(vm["status"], "running");
        assert!(vm["pid"].is_u64() && vm["backend_pid"].is_u64(), "{vm}");
    }
    let exec = host.run(&["exec", "vm2", "--", "echo", "hello"]);
    assert_eq!(exec.stdout, b"echo hello\n", "{exec:?}");
    let logs = host.run(&["logs", "vm1", "--of", "console"]);
    assert!(String::from_utf8_lossy(&logs.stdout).contains("is up"), "{logs:?}");
    let second = run(&script).wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && told.contains("cluster lab is running"), "{told}");
    let down = host.json(&["down", "lab", "--json"]);
    assert_eq!(problem("down", &down), None);
    for vm in down["vms"].as_array().unwrap() {
        assert_eq!(vm["end"], "orderly", "{down}");
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let pool = PathBuf::from(cluster["pool"]["path"].as_str().unwrap());
    assert!(pool.exists() && down["pool_removed"] == false, "the next start takes it: {down}");
    remove(&host, &pool);
    host.assert_nothing_left("down");
    host.assert_bystander_unharmed();
}

fn interrupted() {
    let mut host = Host::new();
    fs::create_dir(host.path().join("data")).unwrap();
    fs::write(host.path().join("data/file"), "x").unwrap();
    // It runs in another directory than the one with these files.
    let script = emitted(&host, &["--pool", "tank", "--share", "data"]);
    let text = fs::read_to_string(&script).unwrap();
    let image = host.path().join("image/root.erofs");
    assert!(text.contains(&format!("filename={}", image.display())), "{text}");
    let mut child = run(&script);
    let ps = wait_up(&host, &mut child);
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{output:?}");
    let kept = host.path().join("run/vhost-famfs-logs/lab");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains(kept.to_str().unwrap()), "{told}");
    assert!(fs::read(kept.join("vm1.console")).unwrap().ends_with(b"is up\r\n"));
    let pool = host.path().join("tank");
    assert_eq!(ps["clusters"][0]["pool"]["path"], pool.to_str().unwrap());
    remove(&host, &pool);
    host.assert_nothing_left("an interrupted script");
    host.assert_bystander_unharmed();
}

fn kept() {
    let mut host = Host::new();
    let start = ["up", "--name", "lab", "--vms", "1", "--overcommit", "--json"];
    let up = host.json(&start);
    let pool = PathBuf::from(up["pool"].as_str().unwrap());
    host.json(&["down", "lab", "--keep-pool", "--json"]);
    assert!(pool.exists());
    assert_eq!(host.json(&start)["pool"], up["pool"]);
    let down = host.json(&["down", "lab", "--json"]);
    assert_eq!(down["pool_removed"], false, "it was kept once: {down}");
    assert!(pool.exists());
    remove(&host, &pool);
    host.assert_nothing_left("down");
    host.assert_bystander_unharmed();
}

pub fn remove(host: &Host, pool: &Path) {
    let output = host.run(&["pool", "rm", "--force", pool.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
}
