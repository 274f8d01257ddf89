// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A cluster that a script of `up --emit cloud-hypervisor` starts, with a stand-in for
//! cloud-hypervisor. Its guests are reached by vsock.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, ExitCode};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::Value;

use super::emitted::{remove, run_with, wait_up};
use super::host::Host;
use super::schema::problem;
use super::stand_in::{Mode, agent_of_guest, value_in};
use super::trial;

/// The name under which this program stands in for cloud-hypervisor.
pub const NAME: &str = "cloud-hypervisor";

/// Environment variable of a stand-in whose guests do not power off.
const DEAF: &str = "STAND_IN_IS_DEAF";

/// Its maximum lifetime, so that a killed test leaves none behind.
const LIFETIME: Duration = Duration::from_secs(600);

pub fn trials() -> Vec<Trial> {
    vec![
        trial("guests_of_cloud_hypervisor_are_reached_by_vsock", commands),
        trial("a_guest_that_does_not_power_off_ends_with_its_vmm", deaf),
    ]
}

/// Acts as cloud-hypervisor until the guest powers off. Its agent is not there for the first who
/// connects.
pub fn run() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().skip(1).collect();
    match argv[0].to_str().unwrap() {
        "--version" => {
            println!("cloud-hypervisor v53.0.0");
            return ExitCode::SUCCESS;
        }
        "--help" => {
            println!("  --pmem <p>  file=,discard_writes=\n  --platform <p>  system_uuid=");
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let option = |name: &str, key: &str| {
        let index = argv.iter().position(|word| word == name).unwrap();
        value_in(&argv[index + 1], key).unwrap()
    };
    fs::write(option("--serial", "file="), "a guest is up\n").unwrap();
    let mode = if std::env::var_os(DEAF).is_some() { Mode::Deaf } else { Mode::Normal };
    let listener = UnixListener::bind(option("--vsock", "socket=")).unwrap();
    let connections = AtomicU32::new(0);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let is_first = connections.fetch_add(1, Ordering::Relaxed) == 0;
            thread::spawn(move || serve(stream.unwrap(), is_first, mode));
        }
    });
    thread::sleep(LIFETIME);
    ExitCode::FAILURE
}

fn serve(mut stream: UnixStream, is_first: bool, mode: Mode) {
    let mut request = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" && stream.read(&mut byte).unwrap() > 0 {
        request.extend(byte);
    }
    assert_eq!(request, b"CONNECT 512\n");
    if !is_first {
        stream.write_all(b"OK 1024\n").unwrap();
        agent_of_guest(stream, mode);
    }
}

/// Emits a cluster, and starts its script with that environment; returns what `ps` says then.
fn start(host: &Host, more: &[(&str, OsString)]) -> (Child, Value) {
    let programs = host.path().join("programs");
    fs::create_dir(&programs).unwrap();
    symlink(std::env::current_exe().unwrap(), programs.join(NAME)).unwrap();
    let mut path = OsString::from(&programs);
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    let words = ["up", "--name", "lab", "--vms", "2", "--overcommit", "--dry-run"];
    let form = ["--emit", NAME, "--output", "forms", "--image", "image"];
    let mut command = host.command("qemu", &[&words[..], &form].concat());
    let output = command.env("PATH", &path).current_dir(host.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let script = host.path().join("forms/lab-cloud-hypervisor.sh");
    let environment: Vec<_> = [("PATH", path)].into_iter().chain(more.iter().cloned()).collect();
    let mut child = run_with(&script, &environment);
    let ps = wait_up(host, &mut child);
    (child, ps)
}

fn pool_of(ps: &Value) -> PathBuf {
    ps["clusters"][0]["pool"]["path"].as_str().unwrap().into()
}

fn commands() {
    let mut host = Host::new();
    let (child, _) = start(&host, &[]);
    for vm in ["vm1", "vm2"] {
        let exec = host.run(&["exec", vm, "--", "echo", "hello"]);
        assert_eq!(exec.stdout, b"echo hello\n", "{exec:?}");
    }
    let ps = host.json(&["ps", "lab", "--json"]);
    assert_eq!(problem("ps", &ps), None);
    for vm in ps["clusters"][0]["vms"].as_array().unwrap() {
        assert_eq!((&vm["status"], &vm["transport"]), (&"running".into(), &"pmem".into()), "{vm}");
        assert!(vm["pid"].is_u64() && vm["backend_pid"].is_null(), "{vm}");
    }
    let file = host.path().join("file");
    fs::write(&file, "content").unwrap();
    let target = host.path().join("copy");
    let vm_path = format!("vm1:{}", target.display());
    let copied = host.run(&["cp", file.to_str().unwrap(), &vm_path]);
    assert!(copied.status.success(), "{copied:?}");
    assert_eq!(fs::read(&target).unwrap(), b"content");
    let logs = host.run(&["logs", "vm1", "--of", "console"]);
    assert!(String::from_utf8_lossy(&logs.stdout).contains("a guest is up"), "{logs:?}");
    let down = host.json(&["down", "lab", "--json"]);
    for vm in down["vms"].as_array().unwrap() {
        assert_eq!(vm["end"], "orderly", "{down}");
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    remove(&host, &pool_of(&ps));
    host.assert_nothing_left("down");
    host.assert_bystander_unharmed();
}

/// The guests have a moment, then the VMMs get the signal TERM.
fn deaf() {
    let mut host = Host::new();
    let (child, ps) = start(&host, &[(DEAF, "1".into())]);
    let down = host.json(&["down", "lab", "--timeout", "1", "--json"]);
    for vm in down["vms"].as_array().unwrap() {
        assert_eq!(vm["end"], "quit", "{down}");
    }
    assert_eq!(down["strays"], 0, "{down}");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(128 + libc::SIGTERM), "{output:?}");
    remove(&host, &pool_of(&ps));
    host.assert_nothing_left("down");
    host.assert_bystander_unharmed();
}
