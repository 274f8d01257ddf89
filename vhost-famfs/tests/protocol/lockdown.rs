// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The sandbox of the real program, and its start by a service manager.

use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use rustix::process::Signal;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::backend::{Backend, DEADLINE, MIB, TestPool, program, until};
use crate::vmm::Vmm;

#[test]
fn gives_everything_up_when_the_vm_connects() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    // What it has dropped from the start; it must still be able to remove its socket.
    until("filter", || (backend.status("Seccomp") == "2").then_some(()));
    let vmm = Vmm::running(&backend);
    // A process that may not empty it cannot gain anything through it either.
    let ours = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| crate::backend::status_field(&ours, name);
    let bounding = match rustix::process::geteuid().is_root() {
        true => "0000000000000000".to_owned(),
        false => field("CapBnd"),
    };
    let bounding = bounding.as_str();
    for thread in backend.threads() {
        for (field, value) in [
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
            ("CapPrm", "0000000000000000"),
            ("CapEff", "0000000000000000"),
            ("CapInh", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("CapBnd", bounding),
        ] {
            assert_eq!(backend.thread_status(&thread, field), value, "{field} of {thread}");
        }
    }
    let limits = backend.proc_file("limits");
    let line = |name: &str| limits.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("Max core file size").contains(" 0 "), "{limits}");
    assert!(line("Max open files").contains(" 128 "), "{limits}");
    drop(vmm);
}

#[test]
fn runs_without_a_sandbox_too() {
    let pool = TestPool::tmpfs(16 * MIB);
    let mut backend = Backend::start(&pool, &["--sandbox", "none"]);
    let mut vmm = Vmm::running(&backend);
    assert_eq!(backend.status("Seccomp"), "0");
    assert_eq!(vmm.flush(), 0);
    drop(vmm);
    backend.wait_for_success();
}

#[test]
fn every_transition_is_an_object_of_the_json_log() {
    let pool = TestPool::file(16 * MIB);
    let mut backend = Backend::start(&pool, &["--log-format", "json"]);
    let mut vmm = Vmm::running(&backend);
    vmm.expect_flush();
    vmm.stop();
    drop(vmm);
    backend.wait_for_success();
    let log = backend.log();
    let events: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let messages: Vec<_> =
        events.iter().map(|e| e["fields"]["message"].as_str().unwrap()).collect();
    assert_eq!(
        messages,
        [
            "pool open",
            "listening",
            "connected",
            "started by the guest",
            "window mapped",
            "stopped",
            "disconnected"
        ]
    );
    let map = &events[4]["fields"];
    assert_eq!(
        (&map["offset"], &map["len"], &map["ack"]),
        (&0.into(), &(16 * MIB).into(), &0.into())
    );
    assert!(map["us"].is_u64(), "{map}");
    let pool = &events[0]["fields"];
    assert_eq!((&pool["kind"], &pool["size"]), (&"file".into(), &(16 * MIB).into()));
}

/// What systemd does for the socket unit: passes descriptor 3, and tells who it is for.
#[test]
fn is_started_by_a_socket_unit() {
    let pool = TestPool::tmpfs(16 * MIB);
    let (socket, notify) = (pool.socket("activated"), pool.socket("notify"));
    let listener = UnixListener::bind(&socket).unwrap();
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\" 3<&0 </dev/null", "sh"]);
    shell.arg(program().get_program()).args(["device", "--pool"]).arg(pool.path());
    shell.stdin(std::os::fd::OwnedFd::from(listener)).env("NOTIFY_SOCKET", &notify);
    let mut backend = Backend::spawn(&mut shell, &socket);
    let told = || {
        let mut text = [0; 256];
        let len = manager.recv(&mut text).unwrap();
        String::from_utf8(text[..len].to_vec()).unwrap()
    };
    assert_eq!(told(), "READY=1\nSTATUS=waiting for the VM\n");
    let mut vmm = Vmm::running(&backend);
    assert_eq!(told(), "STATUS=serving the VM\n");
    vmm.expect_flush();
    drop(vmm);
    backend.wait_for_success();
    assert!(socket.exists(), "the socket is the unit's");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let pool = TestPool::tmpfs(16 * MIB);
    let mut backend = Backend::start(&pool, &[]);
    let _vmm = Vmm::running(&backend);
    backend.signal(Signal::TERM);
    backend.signal(Signal::TERM);
    let code = backend.wait().code();
    assert!(matches!(code, Some(0 | 1)), "{code:?}: {}", backend.log());
}

/// A front-end that removes the guest's RAM ends the back-end of its own VM. The pool, and the
/// back-ends of other VMs, are not affected.
#[test]
fn a_vm_without_its_ram_hurts_no_other() {
    let pool = TestPool::tmpfs(16 * MIB);
    let (mut broken, other) = (Backend::start(&pool, &[]), Backend::start(&pool, &[]));
    let (mut vmm, mut neighbour) = (Vmm::running(&broken), Vmm::running(&other));
    vmm.expect_flush();
    let region = vmm.ram.find_region(GuestAddress(0)).unwrap();
    region.file_offset().unwrap().file().set_len(0).unwrap();
    vmm.kick();
    assert_eq!(broken.wait().signal(), Some(Signal::BUS.as_raw()), "{}", broken.log());
    neighbour.expect_flush();
    assert_eq!(pool.open().metadata().unwrap().len(), 16 * MIB);
}
