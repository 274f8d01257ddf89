// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The vhost-user protocol, spoken with the real program by a front-end in this process.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it is")]

mod backend;
mod vmm;

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::process::Signal;
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress};

use backend::{Backend, Inherited, MIB, TestPool, program};
use vmm::{
    AVAIL, INDIRECT, Link, NEXT, QUEUE_SIZE, RAM_SIZE, REPLY, REQUEST, TABLE, USED, Used, Vmm,
    WINDOW_ADDR, WRITE, expected_features, expected_protocol_features, same_file,
};

// Set-up

#[test]
fn announces_the_pool_and_a_filler_up_to_a_power_of_two() {
    let pool = TestPool::tmpfs(18 * MIB);
    let mut backend = Backend::start(&pool, &[]);
    let (vmm, regions) = Vmm::set_up(&backend);
    assert_eq!(regions, [18 * MIB, 14 * MIB]);
    drop(vmm);
    backend.wait_for_success();
}

#[test]
fn offers_only_what_qemu_survives() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::connect(&backend);
    assert_eq!(vmm.frontend.get_features().unwrap(), expected_features());
    assert_eq!(vmm.frontend.get_protocol_features().unwrap(), expected_protocol_features());
}

#[test]
fn names_the_feature_that_a_front_end_lacks() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::connect(&backend);
    vmm.frontend.get_features().unwrap();
    vmm.frontend.get_protocol_features().unwrap();
    vmm.frontend.set_protocol_features(VhostUserProtocolFeatures::REPLY_ACK).unwrap();
    vmm.start();
    backend.expect_log("VHOST_USER_PROTOCOL_F_BACKEND_REQ");
    assert_eq!(vmm.flush(), 1, "what the guest stores goes nowhere");
}

// The window

#[test]
fn maps_at_the_first_memory_table_after_the_features() {
    let pool = TestPool::tmpfs(18 * MIB);
    let mut backend = Backend::start(&pool, &[]);
    let (mut vmm, _) = Vmm::set_up(&backend);
    vmm.set_mem_table();
    vmm.expect_no_map();
    vmm.set_features();
    vmm.expect_no_map();
    vmm.set_mem_table();
    let map = vmm.expect_map();
    assert_eq!((map.fd_offset, map.shm_offset, map.len), (0, 0, 18 * MIB));
    assert_eq!(map.flags, 1, "read-write");
    assert!(same_file(&map.file, &pool.open()));
    vmm.acknowledge(0);
    backend.expect_log("window mapped");
    vmm.add_window(&pool);
    vmm.set_mem_table();
    vmm.expect_no_map();
    drop(vmm);
    backend.wait_for_success();
}

#[test]
fn maps_a_slice() {
    let pool = TestPool::tmpfs(64 * MIB);
    let backend = Backend::start(&pool, &["--offset", "4M", "--length", "6M"]);
    let (mut vmm, regions) = Vmm::set_up(&backend);
    assert_eq!(regions, [6 * MIB, 2 * MIB]);
    vmm.start();
    let map = vmm.expect_map();
    assert_eq!((map.fd_offset, map.shm_offset, map.len), (4 * MIB, 0, 6 * MIB));
}

#[test]
fn stop_and_cont_do_not_map_again() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    vmm.add_window(&pool);
    vmm.set_mem_table();
    let base = vmm.stop();
    vmm.start_from(base);
    vmm.expect_no_map();
    backend.expect_log("window is still mapped");
    assert_eq!(vmm.flush(), 0);
}

#[test]
fn reset_maps_again() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    for _ in 0..20 {
        vmm.add_window(&pool);
        vmm.set_mem_table();
        vmm.stop();
        vmm.remove_window();
        vmm.forget_queue();
        vmm.start();
        vmm.expect_map();
        vmm.acknowledge(0);
        assert_eq!(vmm.flush(), 0);
    }
}

#[test]
fn another_file_of_the_same_size_is_not_the_window() {
    let pool = TestPool::tmpfs(16 * MIB);
    let other = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    vmm.stop();
    vmm.add_file_as_window(other.open(), other.size);
    vmm.start();
    vmm.expect_map();
}

#[test]
fn a_pool_that_is_replaced_by_name_stays_the_old_one() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let original = pool.open();
    std::fs::rename(pool.path(), pool.beside("moved")).unwrap();
    File::create_new(pool.path()).unwrap().set_len(pool.size).unwrap();
    let (mut vmm, _) = Vmm::set_up(&backend);
    vmm.start();
    assert!(same_file(&vmm.expect_map().file, &original));
}

#[test]
fn messages_are_answered_while_the_map_is_not() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let (mut vmm, _) = Vmm::set_up(&backend);
    vmm.start();
    vmm.expect_map();
    // Each of these would block here if the back-end waited for the acknowledgement.
    vmm.set_mem_table();
    vmm.stop();
    vmm.acknowledge(0);
    backend.expect_log("map answered after the device stopped");
    vmm.forget_queue();
    vmm.start();
    vmm.expect_map();
}

#[test]
fn a_refused_map_fails_flushes_until_the_next_start() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let (mut vmm, _) = Vmm::set_up(&backend);
    vmm.start();
    vmm.expect_map();
    vmm.acknowledge(1);
    backend.expect_log("map refused");
    assert_eq!(vmm.flush(), 1);
    vmm.stop();
    vmm.forget_queue();
    vmm.start();
    vmm.expect_map();
    vmm.acknowledge(0);
    assert_eq!(vmm.flush(), 0);
}

#[test]
fn a_broken_channel_fails_flushes_and_nothing_else() {
    let pool = TestPool::tmpfs(16 * MIB);
    let mut backend = Backend::start(&pool, &[]);
    let (mut vmm, _) = Vmm::set_up(&backend);
    vmm.start();
    vmm.expect_map();
    vmm.close_channel();
    backend.expect_log("map refused");
    assert_eq!(vmm.flush(), 1);
    drop(vmm);
    backend.wait_for_success();
}

#[test]
fn two_vms_get_the_same_file() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backends = [Backend::start(&pool, &[]), Backend::start(&pool, &[])];
    let [one, other] = backends.each_ref().map(|backend| {
        let (mut vmm, _) = Vmm::set_up(backend);
        vmm.start();
        vmm.expect_map().file
    });
    assert!(same_file(&one, &other));
}

// Flush

#[test]
fn flushes_every_kind_of_pool() {
    for pool in [TestPool::tmpfs(16 * MIB), TestPool::file(16 * MIB)] {
        let backend = Backend::start(&pool, &[]);
        let mut vmm = Vmm::running(&backend);
        for _ in 0..3 * u32::from(QUEUE_SIZE) {
            assert_eq!(vmm.flush(), 0);
        }
    }
}

#[test]
fn a_flush_waits_for_the_window() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let (mut vmm, _) = Vmm::set_up(&backend);
    vmm.start();
    let heads = [vmm.offer_flush(), vmm.offer_flush()];
    vmm.kick();
    vmm.expect_map();
    vmm.expect_nothing_used();
    vmm.acknowledge(0);
    for head in heads {
        assert_eq!(vmm.expect_used(), Used { head: head.into(), len: 4 });
    }
    assert_eq!(vmm.ram.read_obj::<u32>(GuestAddress(REPLY)).unwrap(), 0);
}

#[test]
fn a_stop_does_not_lose_a_waiting_flush() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let (mut vmm, _) = Vmm::set_up(&backend);
    vmm.start();
    vmm.expect_map();
    let head = vmm.offer_flush();
    vmm.kick();
    vmm.expect_nothing_used();
    let base = vmm.stop();
    assert_eq!(base, 0, "the request is still in the queue");
    vmm.acknowledge(0);
    vmm.start_from(base);
    vmm.expect_map();
    vmm.acknowledge(0);
    assert_eq!(vmm.expect_used(), Used { head: head.into(), len: 4 });
}

#[test]
fn nothing_is_answered_after_a_stop() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    assert_eq!(vmm.flush(), 0);
    assert_eq!(vmm.stop(), 1);
    vmm.offer_flush();
    vmm.kick();
    vmm.expect_nothing_used();
}

// A hostile driver

#[test]
fn malformed_chains_are_given_back() {
    let pool = TestPool::tmpfs(16 * MIB);
    let mut backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    let end = RAM_SIZE as u64;
    let chains: [(&str, &[Link]); 12] = [
        ("no reply", &[(REQUEST, 4, 0)]),
        ("no request", &[(REPLY, 4, WRITE)]),
        ("short request", &[(REQUEST, 3, NEXT), (REPLY, 4, WRITE)]),
        ("short reply", &[(REQUEST, 4, NEXT), (REPLY, 3, WRITE)]),
        ("empty", &[(REQUEST, 0, NEXT), (REPLY, 0, WRITE)]),
        ("wrong order", &[(REPLY, 4, WRITE | NEXT), (REQUEST, 4, 0)]),
        ("request outside memory", &[(end, 4, NEXT), (REPLY, 4, WRITE)]),
        ("request across the end", &[(end - 2, 4, NEXT), (REPLY, 4, WRITE)]),
        ("reply outside memory", &[(REQUEST, 4, NEXT), (end, 4, WRITE)]),
        ("reply across the end", &[(REQUEST, 4, NEXT), (end - 2, 4, WRITE)]),
        ("address wraps", &[(u64::MAX - 1, 4, NEXT), (REPLY, 4, WRITE)]),
        ("indirect", &[(REQUEST, 32, INDIRECT)]),
    ];
    vmm.ram.write_obj(0_u32, GuestAddress(REQUEST)).unwrap();
    for (name, chain) in chains {
        let head = vmm.offer(chain);
        vmm.kick();
        assert_eq!(vmm.expect_used(), Used { head: head.into(), len: 0 }, "{name}");
    }
    backend.expect_log("malformed request");
    assert_eq!(vmm.flush(), 0);
    assert!(backend.is_running());
}

#[test]
fn chains_that_do_not_end_are_given_back() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    vmm.set_descriptor(40, Descriptor::new(REQUEST, 4, NEXT, 40));
    vmm.set_descriptor(41, Descriptor::new(REQUEST, 4, NEXT, QUEUE_SIZE));
    vmm.set_descriptor(42, Descriptor::new(REQUEST, 4, NEXT, 43));
    vmm.set_descriptor(43, Descriptor::new(REPLY, 4, WRITE | NEXT, 42));
    for head in [40, 41, 42] {
        vmm.offer_head(head);
        vmm.kick();
        assert_eq!(vmm.expect_used(), Used { head: head.into(), len: 0 });
    }
    let long: Vec<_> = (0..20).map(|_| (REQUEST, 4, NEXT)).chain([(REPLY, 4, WRITE)]).collect();
    let head = vmm.offer(&long);
    vmm.kick();
    assert_eq!(vmm.expect_used(), Used { head: head.into(), len: 0 });
    assert_eq!(vmm.flush(), 0);
}

#[test]
fn an_unknown_request_fails() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    vmm.ram.write_obj(1_u32, GuestAddress(REQUEST)).unwrap();
    let head = vmm.offer(&[(REQUEST, 4, NEXT), (REPLY, 4, WRITE)]);
    vmm.kick();
    assert_eq!(vmm.expect_used(), Used { head: head.into(), len: 4 });
    assert_eq!(vmm.ram.read_obj::<u32>(GuestAddress(REPLY)).unwrap(), 1);
}

#[test]
fn a_broken_queue_is_ignored_until_the_reset() {
    let pool = TestPool::tmpfs(16 * MIB);
    for head in [None, Some(QUEUE_SIZE), Some(u16::MAX)] {
        let backend = Backend::start(&pool, &[]);
        let mut vmm = Vmm::running(&backend);
        match head {
            None => vmm.set_avail_index(QUEUE_SIZE + 1),
            Some(head) => vmm.offer_head(head),
        }
        vmm.kick();
        backend.expect_log("queue is broken");
        vmm.kick();
        vmm.expect_nothing_used();
        vmm.stop();
        vmm.forget_queue();
        vmm.start();
        vmm.expect_map();
        vmm.acknowledge(0);
        assert_eq!(vmm.flush(), 0, "{head:?}");
    }
}

#[test]
fn complaints_are_limited() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    for _ in 0..1000 {
        vmm.offer(&[(REQUEST, 4, 0)]);
        vmm.kick();
        vmm.expect_used();
    }
    let lines = backend.log().matches("malformed request").count();
    assert!((1..30).contains(&lines), "{lines} lines for 1000 requests");
}

#[test]
fn buffers_may_lie_in_the_window() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    vmm.add_window(&pool);
    vmm.set_mem_table();
    let (request, reply) = (WINDOW_ADDR + 0x1000, WINDOW_ADDR + 0x2000);
    vmm.window().write_obj(0xff_u32, GuestAddress(reply)).unwrap();
    let head = vmm.offer(&[(request, 4, NEXT), (reply, 4, WRITE)]);
    vmm.kick();
    assert_eq!(vmm.expect_used(), Used { head: head.into(), len: 4 });
    assert_eq!(vmm.window().read_obj::<u32>(GuestAddress(reply)).unwrap(), 0);
}

#[test]
fn the_used_ring_is_only_written_where_it_lies() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    for _ in 0..200 {
        vmm.flush();
    }
    let mut behind = vec![0; 0x4000 - 0x3000 - 6 - 8 * usize::from(QUEUE_SIZE)];
    let at = USED + 4 + 8 * u64::from(QUEUE_SIZE);
    vmm.ram.read_slice(&mut behind, GuestAddress(at)).unwrap();
    assert!(behind.iter().all(|byte| *byte == 0));
}

/// Rings of random numbers, among them many that are nearly right.
#[test]
fn survives_random_rings() {
    const ROUNDS: usize = 300;
    let pool = TestPool::tmpfs(16 * MIB);
    let mut backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    vmm.add_window(&pool);
    vmm.set_mem_table();
    let mut random = Random(0x5eed);
    let edges = [0, REQUEST, REPLY, TABLE, AVAIL, USED, RAM_SIZE as u64 - 2, WINDOW_ADDR, u64::MAX];
    let mut answered = 0;
    for round in 0..ROUNDS {
        vmm.stop();
        vmm.forget_queue();
        vmm.start();
        for index in 0..QUEUE_SIZE {
            let addr = random.pick(&edges).wrapping_add(random.below(8));
            let len = *random.pick(&[0, 1, 3, 4, 5, 4096, u32::MAX]);
            let [flags, next] = [8, u64::from(QUEUE_SIZE) + 2]
                .map(|limit| u16::try_from(random.below(limit)).unwrap());
            vmm.set_descriptor(index, Descriptor::new(addr, len, flags, next));
            vmm.set_avail_entry(index, u16::try_from(random.below(70)).unwrap());
        }
        vmm.set_avail_index(u16::try_from(random.below(70)).unwrap());
        vmm.kick();
        // Most rounds are looked at before the next one begins; the check below is that some are.
        std::thread::sleep(Duration::from_millis(2));
        answered += usize::from(vmm.used_index() > 0);
        assert!(backend.is_running(), "round {round}: {}", backend.log());
    }
    assert!(answered > ROUNDS / 10, "only {answered} rounds were looked at");
    backend.expect_log("queue is broken");
    backend.expect_log("malformed request");
    vmm.stop();
    vmm.forget_queue();
    vmm.start();
    assert_eq!(vmm.flush(), 0);
}

/// Xorshift, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

// Connection and process

/// One step of a VM's life after another, for tests that leave in between.
const LIFE: [fn(&mut Vmm); 13] = [
    |vmm| {
        vmm.frontend.get_features().unwrap();
    },
    |vmm| {
        vmm.frontend.get_protocol_features().unwrap();
    },
    |vmm| vmm.frontend.set_protocol_features(expected_protocol_features()).unwrap(),
    |vmm| {
        vmm.frontend.get_queue_num().unwrap();
    },
    |vmm| vmm.send_channel(),
    |vmm| vmm.frontend.set_owner().unwrap(),
    |vmm| {
        vmm.frontend.get_shmem_config().unwrap();
    },
    |vmm| vmm.set_features(),
    |vmm| vmm.set_mem_table(),
    |vmm| vmm.start_queue(0),
    |vmm| {
        vmm.expect_map();
    },
    |vmm| vmm.acknowledge(0),
    |vmm| {
        vmm.stop();
    },
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
    assert_eq!(vmm.flush(), 0);
}

#[test]
fn serves_on_an_inherited_socket() {
    let pool = TestPool::tmpfs(16 * MIB);
    let socket = pool.beside("inherited");
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
