// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a watch costs, and how long it takes until a new file is visible in another VM, by the
//! host's clock.
//!
//! The host sees the same memory as the guests. The master has published an entry when the log's
//! index changes. The reader has found the file when a byte changes that a loop in the reader
//! writes as soon as it finds the new file.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use crate::{Node, Pool};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use vhost_famfs::vm::Command;

/// Number of files, created one after the other.
const CREATES: usize = 60;
/// How long everything may take, under emulation on a busy host.
const LIMIT: Duration = Duration::from_secs(300);
/// How long the host waits between two checks: short compared with the measured time.
const PAUSE: Duration = Duration::from_micros(100);
/// Offset of famfs in a pool with a devdax info block, and offset of the log's index in famfs
/// (shared with the description of the file format in `famfs::format`).
const VIEW: u64 = 2 << 20;
const NEXT_INDEX: u64 = VIEW + famfs::format::LOG_OFFSET + 40;

/// The times, in milliseconds, from the master's publishing of each of 60 files to its discovery in
/// the reader, sorted. Both VMs follow the log.
pub fn watch_latency(pool: &Pool, master: &Node, reader: &Node) -> Result<Vec<f64>> {
    // The reader's loop answers in this file, which root may write to in every VM.
    let begin = "famfs mkdir /mnt/famfs/latency && famfs creat -s 4096 /mnt/famfs/latency/ack";
    master.run(&Command::shell(begin), LIMIT)?;
    let wait = "until [[ -e /mnt/famfs/latency/ack ]]; do sleep 0.1; done";
    reader.run(&Command::shell(wait), LIMIT)?;
    let listing: Value = serde_json::from_slice(&pool.famfs(["ls", "--json", "/latency/ack"])?)?;
    let ack = listing["entries"][0]["map"]["extents"][0]["offset"]
        .as_u64()
        .with_context(|| format!("no offset of the file in {listing}"))?;
    let memory = File::open(pool.path()).context("cannot open the pool")?;
    let index = || read_u64(&memory, NEXT_INDEX);
    let answer = || read_u64(&memory, VIEW + ack).map(|bytes| usize::from(bytes.to_le_bytes()[0]));
    let first = index()?;
    // No process is started between the discovery and the answer.
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
            // Read the answer first: a file that is visible was published before.
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

/// What a VM does while nothing is published.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    /// Processor time of the guest's watch, in per cent of one processor.
    pub watch: f64,
    /// How often the watch waits, in a second: once for each look.
    pub looks: f64,
    /// Processor time of QEMU with the whole guest, in per cent of one processor.
    pub vm: f64,
}

impl Idle {
    /// Observes a VM for so many seconds.
    pub fn of(node: &Node, seconds: u32) -> Result<Self> {
        let script = format!(
            "
            pid=$(systemctl show --property=MainPID --value famfs-watch)
            used() {{
                local all=0 ns rest key value
                for task in /proc/$pid/task/*/schedstat; do
                    read ns rest < $task; all=$((all + ns))
                done
                while read key value; do
                    [[ $key != voluntary_ctxt_switches: ]] || echo $all $value
                done < /proc/$pid/status
            }}
            sleep 2; before=$(used); sleep {seconds}; echo $before $(used)"
        );
        let (at, before) = (Instant::now(), processor_time(node.vm.pid())?);
        let output = node.run(&Command::shell(&script), LIMIT)?;
        let vm = processor_time(node.vm.pid())? - before;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let numbers: Vec<f64> =
            text.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let [ns_before, looks_before, ns, looks] = numbers[..] else {
            bail!("unexpected output: {text}");
        };
        let seconds = f64::from(seconds);
        Ok(Self {
            watch: (ns - ns_before) / 1e9 / seconds * 100.0,
            looks: (looks - looks_before) / seconds,
            vm: vm / at.elapsed().as_secs_f64() * 100.0,
        })
    }
}

/// Processor time that a process has used, in seconds (proc_pid_stat(5)).
pub fn processor_time(pid: u32) -> Result<f64> {
    const TICKS: f64 = 100.0;
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("cannot look at process {pid}"))?;
    let numbers = text.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    let ticks = numbers.split(' ').skip(11).take(2).map(str::parse::<f64>);
    let ticks = ticks.sum::<Result<f64, _>>().with_context(|| format!("unexpected: {text}"))?;
    Ok(ticks / TICKS)
}

fn read_u64(file: &File, offset: u64) -> Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, offset).context("cannot read the pool")?;
    Ok(u64::from_le_bytes(bytes))
}
