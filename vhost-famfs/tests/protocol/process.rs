// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the process starts and ends: connection, signals, descriptors from a parent.

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixListener;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::process::Signal;
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;

use crate::backend::{Backend, Inherited, MIB, TestPool, program};
use crate::vmm::{self, Vmm, expected_protocol_features, same_file};

/// Every message of a VM's life in order, for tests that disconnect in between: set-up, start, map,
/// stop, and a second start.
pub const LIFE: [fn(&mut Vmm); 27] = [
    |vmm| _ = vmm.frontend.get_features().unwrap(),
    |vmm| _ = vmm.frontend.get_protocol_features().unwrap(),
    |vmm| vmm.frontend.set_protocol_features(expected_protocol_features()).unwrap(),
    |vmm| _ = vmm.frontend.get_queue_num().unwrap(),
    Vmm::send_channel,
    |vmm| vmm.frontend.set_owner().unwrap(),
    |vmm| _ = vmm.frontend.get_shmem_config().unwrap(),
    |vmm| vmm.set_features(),
    |vmm| vmm.set_mem_table(),
    |vmm| vmm.set_num(),
    |vmm| vmm.set_base(0),
    |vmm| vmm.set_addresses(0),
    |vmm| vmm.set_kick(),
    |vmm| vmm.set_call(),
    |vmm| vmm.enable(true),
    |vmm| _ = vmm.expect_map(),
    |vmm| vmm.acknowledge(0),
    |vmm| vmm.enable(false),
    |vmm| _ = vmm.frontend.get_vring_base(0).unwrap(),
    |vmm| vmm.set_features(),
    |vmm| vmm.set_mem_table(),
    |vmm| vmm.set_num(),
    |vmm| vmm.set_base(0),
    |vmm| vmm.set_addresses(0),
    |vmm| vmm.set_kick(),
    |vmm| vmm.set_call(),
    |vmm| vmm.enable(true),
];

#[test]
fn exits_cleanly_wherever_the_vm_goes() {
    let pool = TestPool::tmpfs(16 * MIB);
    for steps in 0..=LIFE.len() {
        let mut backend = Backend::start(&pool, &[]);
        let mut vmm = Vmm::connect(&backend);
        LIFE[..steps].iter().for_each(|step| step(&mut vmm));
        drop(vmm);
        backend.wait_for_success();
        backend.expect_log("disconnected");
    }
}

#[test]
fn exits_cleanly_in_the_middle_of_a_header() {
    let pool = TestPool::tmpfs(16 * MIB);
    for part in 1..12 {
        let mut backend = Backend::start(&pool, &[]);
        let mut socket = vmm::connect(&backend);
        // SET_FEATURES, version 1, with eight bytes to follow.
        let message: Vec<u8> = [2_u32, 1, 8, 1, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
        socket.write_all(&message[..part]).unwrap();
        drop(socket);
        backend.wait_for_success();
    }
}

#[test]
fn a_protocol_error_ends_the_program_with_a_message() {
    let pool = TestPool::tmpfs(16 * MIB);
    let mut backend = Backend::start(&pool, &[]);
    let mut socket = vmm::connect(&backend);
    let message: Vec<u8> = [0xffff_u32, 1, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
    socket.write_all(&message).unwrap();
    assert_eq!(backend.wait().code(), Some(1));
    backend.expect_log("protocol error");
}

#[test]
fn serves_on_when_nobody_reads_its_log() {
    let pool = TestPool::tmpfs(16 * MIB);
    let mut backend = Backend::start_unheard(&pool);
    let (mut vmm, _) = Vmm::set_up(&backend);
    vmm.start();
    vmm.expect_map();
    vmm.acknowledge(0);
    vmm.expect_flush();
    drop(vmm);
    backend.wait_for_success();
}

#[test]
fn serves_one_connection_and_takes_its_socket_away() {
    let pool = TestPool::tmpfs(16 * MIB);
    let mut backend = Backend::start(&pool, &[]);
    let (vmm, _) = Vmm::set_up(&backend);
    assert!(!backend.socket.exists(), "a second VM would wait for ever");
    drop(vmm);
    backend.wait_for_success();
}

#[test]
fn stops_on_request() {
    for signal in [Signal::TERM, Signal::INT] {
        let pool = TestPool::tmpfs(16 * MIB);
        let mut waiting = Backend::start(&pool, &[]);
        waiting.signal(signal);
        waiting.wait_for_success();
        assert!(!waiting.socket.exists());

        let mut serving = Backend::start(&pool, &[]);
        let vmm = Vmm::running(&serving);
        serving.signal(signal);
        serving.wait_for_success();
        serving.expect_log("power it off");
        drop(vmm);
    }
}

#[test]
fn stops_on_request_while_the_map_is_not_answered() {
    let pool = TestPool::tmpfs(16 * MIB);
    let mut backend = Backend::start(&pool, &[]);
    let (mut vmm, _) = Vmm::set_up(&backend);
    vmm.start();
    vmm.expect_map();
    backend.signal(Signal::TERM);
    backend.wait_for_success();
}

/// The cost of a back-end does not depend on the size of the pool.
#[test]
fn a_large_pool_takes_no_memory() {
    // For an unoptimised program; `cargo xtask bench device` measures the real one.
    const LIMIT_KIB: u64 = 16 << 10;
    let pool = TestPool::tmpfs(1 << 40);
    let backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    vmm.add_window(&pool);
    vmm.set_mem_table();
    assert_eq!(vmm.flush(), 0);
    let resident = backend.resident_kib();
    println!("resident: {resident} KiB");
    assert!(resident < LIMIT_KIB, "{resident} KiB are resident");
}

// Descriptors from a parent

fn device(arguments: &[&str]) -> std::process::Command {
    let mut command = program();
    command.arg("device").args(arguments);
    command
}

#[test]
fn serves_an_inherited_memfd_and_seals_it() {
    let fd = rustix::fs::memfd_create("tank", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
    let memfd = File::from(fd.unwrap());
    memfd.set_len(16 * MIB).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let backend = {
        let inherited = Inherited::new(&memfd);
        let mut command = device(&["--pool-fd", &inherited.number(), "--socket-path"]);
        Backend::spawn(command.arg(&socket), &socket)
    };
    backend.expect_log("memfd:tank");
    assert!(rustix::fs::fcntl_get_seals(&memfd).unwrap().contains(SealFlags::SHRINK));
    assert!(memfd.set_len(MIB).is_err(), "the pool was shrunk under a VM");
    let (mut vmm, _) = Vmm::set_up(&backend);
    vmm.start();
    assert!(same_file(&vmm.expect_map().file, &memfd));
    vmm.acknowledge(0);
    vmm.expect_flush();
}

#[test]
fn serves_on_an_inherited_socket() {
    let pool = TestPool::tmpfs(16 * MIB);
    let socket = pool.socket("inherited");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut backend = {
        let inherited = Inherited::new(&listener);
        let mut command = device(&["--fd", &inherited.number(), "--pool"]);
        Backend::spawn(command.arg(pool.path()), &socket)
    };
    drop(Vmm::running(&backend));
    backend.wait_for_success();
    assert!(socket.exists(), "the file belongs to the parent");
}
