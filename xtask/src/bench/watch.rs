// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How long it takes until a new file of the master is visible in another VM that follows the log,
//! and what a watch costs while nothing happens: told by others what they publish, and looking by
//! itself.

use anyhow::{Context, Result};
use vm_tests::{Artifacts, BOOT, Cluster, Idle, Member, Node, Pool, View, watch_latency};

use super::Measurement;
use super::measurement::Better;
use crate::{image, paths};

/// Size of the pool and of the VMs' memory.
const POOL: u64 = 512 << 20;
const MEMORY: u64 = 768 << 20;

/// The goals; there is no other program to compare with: milliseconds, and per cent of an emulated
/// processor.
const VISIBLE: f64 = 10.0;
const IDLE: f64 = 0.2;

/// How many seconds to observe an idle VM.
const SECONDS: u32 = 20;

/// Creates files in one VM and waits for them in the other.
pub fn run() -> Result<Vec<Measurement>> {
    let artifacts = image::run()?.artifacts(&paths::target().join("vm/bench-watch"))?;
    let [told, alone] = [true, false].map(|told| measure(&artifacts, told));
    let (told, alone) = (told?, alone?);
    Ok(vec![
        Measurement::new(
            "watch.visible",
            "new file visible in another VM (median)",
            "ms",
            told.visible,
            ("the goal", VISIBLE),
            (Better::Lower, 1.0),
        ),
        Measurement::new(
            "watch.visible-untold",
            "the same, without wake-ups",
            "ms",
            alone.visible,
            ("the goal", VISIBLE),
            (Better::Lower, 1.0),
        ),
        Measurement::new(
            "watch.idle",
            "processor of an idle watch",
            "%",
            told.idle.watch,
            ("the goal", IDLE),
            (Better::Lower, 1.0),
        ),
        Measurement::new(
            "watch.idle-vm",
            "processor of QEMU with an idle guest",
            "%",
            told.idle.vm,
            ("without wake-ups", alone.idle.vm),
            (Better::Lower, None),
        ),
        Measurement::new(
            "watch.idle-untold",
            "processor of an idle watch without wake-ups",
            "%",
            alone.idle.watch,
            ("with them", told.idle.watch),
            (Better::Lower, None),
        ),
    ])
}

struct Figures {
    /// Milliseconds.
    visible: f64,
    idle: Idle,
}

fn measure(artifacts: &Artifacts, told: bool) -> Result<Figures> {
    let pool = Pool::create(artifacts, POOL, POOL, View::Devdax)?;
    pool.mkfs(&[])?;
    let member = |name, master| {
        let member = Member::new(name, master).in_threads();
        if told { member } else { member.without_wake_ups() }
    };
    let members = vec![member("master", true), member("reader", false)];
    let cluster = Cluster::start(artifacts, &pool, MEMORY, members)?;
    cluster.wait_ready(BOOT)?;
    cluster.in_all(Node::wait_watch)?;
    let (master, reader) = (cluster.node("master")?, cluster.node("reader")?);
    let times = watch_latency(&pool, master, reader)?;
    let visible = times.get(times.len() / 2).copied().context("nothing was measured")?;
    let idle = Idle::of(reader, SECONDS)?;
    cluster.end()?;
    Ok(Figures { visible, idle })
}
