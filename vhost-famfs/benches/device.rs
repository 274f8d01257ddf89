// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The cost of the back-end, measured on the real program with a front-end in this process. Prints
//! one JSON object per figure. Arguments select what to measure: connect, memory, flush; the
//! default is all.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on should panic where it is")]
#![allow(dead_code, reason = "the protocol tests use the rest of the front-end")]

#[path = "../tests/protocol/backend.rs"]
mod backend;
#[path = "../tests/protocol/vmm.rs"]
mod vmm;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use vm_memory::volatile_memory::VolatileMemory;
use vm_memory::{FileOffset, MmapRegion};
use vmm_sys_util::eventfd::EventFd;

use backend::{Backend, MIB, TestPool, until};
use vmm::Vmm;

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// How often to measure a connection and a flush.
const CONNECTIONS: usize = 101;
const FLUSHES: usize = 501;
/// How long the back-end must sleep while a guest uses the pool.
const COPYING: Duration = Duration::from_secs(30);

fn main() {
    // cargo adds its own option.
    let wanted: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let parts: [(&str, fn()); 3] =
        [("connect", connect), ("memory", memory_and_wakeups), ("flush", flush)];
    for (name, measure) in parts {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            measure();
        }
    }
}

fn print(id: &str, what: &str, unit: &str, value: f64, peer: (&str, f64), goal: f64) {
    let (peer, peer_value) = peer;
    println!(
        "{}",
        json!({
            "id": id, "what": what, "unit": unit, "value": value,
            "peer": peer, "peer_value": peer_value, "goal": goal, "lower_is_better": true,
        })
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// A VMM is a program that must start before it connects. That takes longer than what the back-end
/// still has to start once it is listening, so the VMM finds all threads waiting.
fn wait_until_idle(backend: &Backend) {
    let sleeps = |thread: &String| backend.thread_status(thread, "State").starts_with('S');
    until("back-end that waits for its VM", || {
        let threads = backend.threads();
        (threads.len() > 2 && threads.iter().all(sleeps)).then_some(())
    });
}

/// Time from connect(2) to the mapped window, for a small and a large pool in turn.
fn connect() {
    let pools = [GIB, TIB].map(TestPool::tmpfs);
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..CONNECTIONS {
        for (pool, times) in pools.iter().zip(&mut times) {
            let mut backend = Backend::start(pool, &[]);
            wait_until_idle(&backend);
            let ram = vmm::guest_ram();
            let begin = Instant::now();
            let mut vmm = Vmm::connect_with(&backend.socket, ram);
            vmm.negotiate();
            vmm.start();
            let map = vmm.expect_map();
            vmm.add_file_as_window(map.file, map.len);
            vmm.acknowledge(0);
            times.push(micros(begin.elapsed()));
            drop(vmm);
            backend.wait_for_success();
        }
    }
    let [small, large] = times.map(median);
    let limit = ("the limit", 500.0);
    print("device.connect", "connect to window mapped, 1 GiB", "us", small, limit, 1.0);
    print(
        "device.connect-large",
        "connect to window mapped, 1 TiB",
        "us",
        large,
        ("1 GiB", small),
        1.5,
    );
}

/// Copies data within the first bytes of the pool for a while, as a guest does through the window.
fn copy_in_pool(pool: &TestPool, time: Duration) {
    const COPIED: usize = 32 << 20;
    let region: MmapRegion =
        MmapRegion::from_file(FileOffset::new(pool.open(), 0), 2 * COPIED).unwrap();
    let memory = region.as_volatile_slice();
    let (from, to) = memory.split_at(COPIED).unwrap();
    let begin = Instant::now();
    while begin.elapsed() < time {
        from.copy_to_volatile_slice(to);
    }
}

/// Resident memory with a large pool, and wake-ups while a guest loads and stores.
fn memory_and_wakeups() {
    let pool = TestPool::tmpfs(TIB);
    let backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    vmm.add_window(&pool);
    vmm.set_mem_table();
    vmm.expect_flush();
    let resident = f64::from(u32::try_from(backend.resident_kib()).unwrap());
    print("device.rss", "resident memory, 1 TiB pool", "KiB", resident, ("the limit", 4096.0), 1.0);
    let wakeups = || -> u32 {
        let count =
            |thread: &String, field| backend.thread_status(thread, field).parse::<u32>().unwrap();
        let fields = ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"];
        backend.threads().iter().flat_map(|t| fields.map(|field| count(t, field))).sum()
    };
    let before = wakeups();
    copy_in_pool(&pool, COPYING);
    let woken = f64::from(wakeups() - before);
    print(
        "device.idle",
        "wake-ups in 30 s of memcpy in the pool",
        "",
        woken + 1.0,
        ("none, counted from 1", 1.0),
        1.0,
    );
}

/// A flush of a pool on disk, compared with its minimum cost.
fn flush() {
    let pool = TestPool::file(64 * MIB);
    let backend = Backend::start(&pool, &[]);
    let mut vmm = Vmm::running(&backend);
    vmm.expect_flush();
    let file = pool.open();
    let bare = Bare::new(file.try_clone().unwrap());
    let (mut flushes, mut syncs) = (Vec::new(), Vec::new());
    for round in 0..FLUSHES {
        dirty(&file, round);
        vmm.offer_flush();
        let begin = Instant::now();
        vmm.kick();
        vmm.wait_call();
        flushes.push(micros(begin.elapsed()));
        vmm.take_used();
        dirty(&file, round);
        syncs.push(micros(bare.round_trip()));
    }
    let peer = ("fdatasync and an eventfd round trip", median(syncs));
    print("device.flush", "flush round trip, pool on storage", "us", median(flushes), peer, 1.3);
}

fn dirty(file: &File, round: usize) {
    file.write_all_at(&round.to_ne_bytes(), 4096).unwrap();
}

/// A thread that syncs on request, and reports when it is done.
struct Bare {
    kick: EventFd,
    done: EventFd,
}

impl Bare {
    fn new(file: File) -> Self {
        let bare = Self { kick: EventFd::new(0).unwrap(), done: EventFd::new(0).unwrap() };
        let (kick, done) = (bare.kick.try_clone().unwrap(), bare.done.try_clone().unwrap());
        thread::spawn(move || {
            while kick.read().is_ok() {
                file.sync_data().unwrap();
                done.write(1).unwrap();
            }
        });
        bare
    }

    fn round_trip(&self) -> Duration {
        let begin = Instant::now();
        self.kick.write(1).unwrap();
        self.done.read().unwrap();
        begin.elapsed()
    }
}
