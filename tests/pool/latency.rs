// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How long a new file takes to be visible in another VM, by the host's clock.
//!
//! The host sees the same memory as the guests: the moment in which the master publishes an entry
//! is when the log's index moves, and the moment in which the reader has the file is when a byte
//! of a file changes that a loop in the reader writes as soon as it finds the new file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use vhost_famfs::launch::Command;
use vm_tests::{Node, Pool};

use super::{LIMIT, shell, wait_for};

/// Files that are made, one after the other.
pub const CREATES: usize = 60;
/// How long the host waits between two looks: short beside what is measured.
const PAUSE: Duration = Duration::from_micros(100);
/// Where famfs starts in a pool with a devdax info block, and the log's index in there
/// (shared with the file format's description in `famfs::format`).
const VIEW: u64 = 2 << 20;
const NEXT_INDEX: u64 = VIEW + famfs::format::LOG_OFFSET + 40;

/// Seconds that an idle watch is looked at, and the units of its processor time in a second
/// (USER_HZ of proc_pid_stat(5)).
const IDLE: f64 = 10.0;
const TICKS: f64 = 100.0;

/// Milliseconds from the publishing of each file to its being seen, sorted.
pub fn measure(pool: &Pool, master: &Node, reader: &Node) -> Result<Vec<f64>> {
    // The reader's loop answers in this file, which every VM may write with the right of root.
    shell(master, "famfs mkdir /mnt/famfs/latency && famfs creat -s 4096 /mnt/famfs/latency/ack")?;
    wait_for(reader, "test -e /mnt/famfs/latency/ack")?;
    let listing: Value = serde_json::from_slice(&pool.famfs(["ls", "--json", "/latency/ack"])?)?;
    let ack = listing["entries"][0]["map"]["extents"][0]["offset"]
        .as_u64()
        .with_context(|| format!("no offset of the file in {listing}"))?;
    let memory = File::open(pool.path()).context("cannot open the pool")?;
    let index = || read_u64(&memory, NEXT_INDEX);
    let answer = || read_u64(&memory, VIEW + ack).map(|bytes| usize::from(bytes.to_le_bytes()[0]));
    let first = index()?;
    // Without a process between the finding and the answer.
    let answering = format!(
        "cd /mnt/famfs/latency
        for n in {{1..{CREATES}}}; do
            printf -v byte '\\\\x%02x' $n
            until [[ -e f$n ]]; do :; done
            printf $byte 1<>ack
        done"
    );
    let making =
        format!("for n in {{1..{CREATES}}}; do famfs creat -s 4096 /mnt/famfs/latency/f$n; done");
    thread::scope(|scope| {
        let reader = scope.spawn(|| reader.run(&Command::shell(&answering), LIMIT).map(drop));
        let master = scope.spawn(|| master.run(&Command::shell(&making), LIMIT).map(drop));
        let deadline = Instant::now() + LIMIT;
        let (mut published, mut seen) = (Vec::new(), Vec::new());
        while seen.len() < CREATES {
            let now = Instant::now();
            // The answer first: what is seen was published before.
            let (answer, index) = (answer()?, index()?);
            while first + (published.len() as u64) < index {
                published.push(now);
            }
            while seen.len() < answer {
                seen.push(now);
            }
            if now > deadline {
                bail!("{} files published, {} seen", published.len(), seen.len());
            }
            thread::sleep(PAUSE);
        }
        for thread in [reader, master] {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        ensure!(published.len() == CREATES, "{} files published", published.len());
        let mut times: Vec<f64> = published
            .iter()
            .zip(&seen)
            .map(|(from, to)| to.saturating_duration_since(*from).as_secs_f64() * 1000.0)
            .collect();
        times.sort_by(f64::total_cmp);
        Ok(times)
    })
}

fn read_u64(file: &File, offset: u64) -> Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, offset).context("cannot read the pool")?;
    Ok(u64::from_le_bytes(bytes))
}

/// Measures, prints, and asks only for what a busy host can do.
pub fn check(pool: &Pool, master: &Node, reader: &Node) -> Result<()> {
    let times = measure(pool, master, reader)?;
    let at = |per_cent: usize| times[(times.len() - 1) * per_cent / 100];
    println!(
        "# {} files: visible after {:.1} ms (median), {:.1} ms (90 %), {:.1} ms (longest)",
        times.len(),
        at(50),
        at(90),
        at(100)
    );
    ensure!(at(50) < 1000.0, "the median is {:.0} ms", at(50));
    Ok(())
}

/// How much of a processor the watch takes while nothing happens.
pub fn idle(node: &Node) -> Result<()> {
    let script = format!(
        "
        pid=$(systemctl show --property=MainPID --value famfs-watch)
        ticks() {{ read -ra stat < /proc/$pid/stat; echo $((stat[13] + stat[14])); }}
        sleep 1; before=$(ticks); sleep {IDLE}; echo $(($(ticks) - before))"
    );
    let output = shell(node, &script)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let ticks: f64 = text.trim().parse().with_context(|| format!("unexpected output: {text}"))?;
    let share = ticks / (TICKS * IDLE) * 100.0;
    println!("# an idle watch takes {share:.1} % of an emulated processor");
    ensure!(share < 25.0, "{share:.1} %");
    Ok(())
}
