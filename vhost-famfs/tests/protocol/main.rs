// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The vhost-user protocol between the real program and a front-end in this process.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it is")]

mod backend;
mod hostile;
mod lockdown;
mod process;
mod reconnect;
mod vmm;

use std::fs::File;

use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vm_memory::{Bytes, GuestAddress};

use backend::{Backend, MIB, TestPool};
use vmm::{QUEUE_SIZE, REPLY, Used, Vmm, expected_features, expected_protocol_features, same_file};

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

/// What cloud-hypervisor's generic vhost-user device lacks is the last one.
#[test]
fn a_front_end_without_shared_memory_regions_is_told_the_way_out() {
    let nothing = VhostUserProtocolFeatures::REPLY_ACK;
    let channel = expected_protocol_features() - VhostUserProtocolFeatures::SHMEM;
    for (features, missing) in
        [(nothing, "VHOST_USER_PROTOCOL_F_BACKEND_REQ"), (channel, "VHOST_USER_PROTOCOL_F_SHMEM")]
    {
        let pool = TestPool::tmpfs(16 * MIB);
        let mut backend = Backend::start(&pool, &[]);
        let mut vmm = Vmm::connect(&backend);
        vmm.frontend.get_features().unwrap();
        vmm.frontend.get_protocol_features().unwrap();
        vmm.frontend.set_protocol_features(features).unwrap();
        if features == channel {
            vmm.send_channel();
        }
        vmm.set_features();
        assert_eq!(backend.wait().code(), Some(1));
        backend.expect_log("this VMM cannot map the pool for its guest");
        backend.expect_log(missing);
        backend.expect_log("--pmem file=POOL,discard_writes=off of cloud-hypervisor");
    }
}

/// The driver may not know the feature, or the VMM may hide it from the driver.
#[test]
fn a_guest_that_cannot_find_the_pool_is_warned_of_with_both_causes() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let (vmm, _) = Vmm::set_up(&backend);
    let region = 1;
    vmm.frontend.set_features(expected_features() & !region).unwrap();
    backend.expect_log("does not use VIRTIO_PMEM_F_SHMEM_REGION");
    backend.expect_log("its kernel is too old, or the VMM does not offer it the feature");
}

#[test]
fn a_front_end_that_promises_no_answer_must_answer_the_map() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::connect(&backend);
    vmm.frontend.get_features().unwrap();
    let offered = vmm.frontend.get_protocol_features().unwrap();
    vmm.frontend.set_protocol_features(offered - VhostUserProtocolFeatures::REPLY_ACK).unwrap();
    vmm.send_channel();
    vmm.frontend.get_shmem_config().unwrap();
    vmm.start();
    vmm.expect_map();
    assert_eq!(vmm.flush(), 1, "nobody said that the window is there");
    vmm.acknowledge(0);
    vmm.expect_flush();
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
        vmm.expect_flush();
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
    backend.expect_log("the front-end answered the map after the device stopped");
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
    vmm.expect_flush();
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
fn an_interrupt_comes_after_the_answer() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    vmm.expect_flush();
    for _ in 0..1000 {
        vmm.offer_flush();
        vmm.kick();
        vmm.wait_call();
        vmm.take_used();
    }
}

#[test]
fn a_flush_before_the_window_fails() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let (mut vmm, _) = Vmm::set_up(&backend);
    vmm.start();
    vmm.expect_map();
    assert_eq!(vmm.flush(), 1, "what the guest stored before went nowhere");
    vmm.acknowledge(0);
    backend.expect_log("window mapped");
    assert_eq!(vmm.flush(), 0);
}

#[test]
fn a_stop_does_not_lose_a_waiting_flush() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    assert_eq!(vmm.flush(), 0);
    vmm.add_window(&pool);
    let base = vmm.stop();
    let head = vmm.offer_flush();
    vmm.kick();
    vmm.expect_nothing_used();
    vmm.start_from(base);
    assert_eq!(vmm.expect_used(), Used { head: head.into(), len: 4 });
    assert_eq!(vmm.ram.read_obj::<u32>(GuestAddress(REPLY)).unwrap(), 0);
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
