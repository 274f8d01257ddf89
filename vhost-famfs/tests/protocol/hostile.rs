// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A driver that breaks every rule: requests must be returned, the queue must be declared broken,
//! and the process must survive.

use std::time::{Duration, Instant};

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress};

use crate::backend::{Backend, DEADLINE, MIB, TestPool};
use crate::vmm::{
    AVAIL, INDIRECT, Link, NEXT, QUEUE_SIZE, RAM_SIZE, REPLY, REQUEST, TABLE, USED, Used, Vmm,
    WINDOW_ADDR, WRITE,
};

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
        vmm.expect_flush();
    }
}

#[test]
fn complaints_are_limited() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    let begin = Instant::now();
    for _ in 0..1000 {
        vmm.offer(&[(REQUEST, 4, 0)]);
        vmm.kick();
        vmm.expect_used();
    }
    let limit = usize::try_from(begin.elapsed().as_secs()).unwrap() + 2;
    let lines = backend.log().matches("malformed request").count();
    assert!(
        (1..=limit).contains(&lines),
        "{lines} lines for 1000 requests, expected at most {limit}"
    );
}

/// A guest can reset its device as often as it likes.
#[test]
fn what_a_restart_logs_is_limited() {
    let pool = TestPool::tmpfs(16 * MIB);
    let backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    let begin = Instant::now();
    for _ in 0..300 {
        vmm.stop();
        vmm.forget_queue();
        vmm.start();
        vmm.expect_map();
        vmm.acknowledge(0);
    }
    let limit = usize::try_from(begin.elapsed().as_secs()).unwrap() + 2;
    for line in ["started by the guest", "window mapped", "stopped"] {
        // Another message says what was answered after the device stopped.
        let lines = backend.log().matches(&format!(": {line}")).count();
        assert!((1..=limit).contains(&lines), "{line}: {lines} lines, expected at most {limit}");
    }
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

/// Rings of random numbers, many of which are nearly valid.
#[test]
fn survives_random_rings() {
    const ROUNDS: usize = 300;
    const LOOKED_AT: usize = 30;
    let pool = TestPool::tmpfs(16 * MIB);
    let mut backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    vmm.add_window(&pool);
    vmm.set_mem_table();
    let mut random = Random(0x5eed);
    let edges = [0, REQUEST, REPLY, TABLE, AVAIL, USED, RAM_SIZE as u64 - 2, WINDOW_ADDR, u64::MAX];
    let (mut round, mut answered) = (0, 0);
    let begin = Instant::now();
    // On a busy host, the program is too late for most of them.
    while round < ROUNDS || answered < LOOKED_AT && begin.elapsed() < DEADLINE {
        round += 1;
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
        // Most rounds are processed before the next one begins.
        std::thread::sleep(Duration::from_millis(2));
        answered += usize::from(vmm.used_index() > 0);
        assert!(backend.is_running(), "round {round}: {}", backend.log());
    }
    assert!(answered >= LOOKED_AT, "only {answered} of {round} rounds were looked at");
    backend.expect_log("queue is broken");
    backend.expect_log("malformed request");
    vmm.stop();
    vmm.forget_queue();
    vmm.start();
    assert_eq!(vmm.flush(), 0);
}

/// Xorshift, so that a failure can be reproduced.
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
