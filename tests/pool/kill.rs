// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Kills the master's VM during a copy: files reported as complete must exist, existing files must
//! be correct, and the next boot must continue.
//!
//! A kill waits until the VM has reported the required number of complete directories, and then for
//! a fraction of the time that a directory takes. So every kill finds complete and incomplete
//! files, however fast the host is today.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use famfs::write::prng::SeededBytes;
use rustix::process::{Pid, Signal, kill_process};
use vhost_famfs::vm::Command;
use vm_tests::{Artifacts, BOOT, Cluster, Member, Node, Pool, Session, View, seed};

use super::source::{Source, Tree};
use super::{LIMIT, MEMORY, shell};

/// The size of the pool, and the host memory that it may use before it is created anew.
const POOL: u64 = 2 << 30;
const CONTENT: u64 = 512 << 20;
const ROUNDS_PER_POOL: u32 = 4;
/// How often to kill the VM: in continuous integration, and with `--all`.
const KILLS: u32 = 3;
const ALL_KILLS: u32 = 20;

/// The tree to copy.
const TREE: Tree = Tree { directories: 10, files: 10, largest: 1 << 20 };

/// The part of the copy during which the kills happen, spread evenly.
const FIRST: f64 = 0.1;
const LAST: f64 = 0.9;
/// How long the host waits between two checks of the console.
const PAUSE: Duration = Duration::from_millis(2);

/// How long QEMU may take to end.
const GONE: Duration = Duration::from_secs(120);

/// Copies everything once, to check that it works and to measure how long it takes; then kills at
/// moments that are chosen by the seed.
pub fn scenario(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let source = Source::make(artifacts, dir.path(), TREE)?;
    let pool = Pool::create(artifacts, POOL, CONTENT, View::Devdax)?;
    pool.mkfs(&[])?;
    let (seed, name) = seed()?;
    println!("# {name}={seed}");
    let mut random = SeededBytes::new(seed);

    let start = Instant::now();
    let mut took = Duration::ZERO;
    session.check("a tree is copied, and right after a remount", || {
        let cluster = boot(artifacts, &pool, &source)?;
        let node = cluster.node("master")?;
        let copy = Instant::now();
        node.run(&copying(0), LIMIT)?;
        took = copy.elapsed();
        shell(node, "famfs umount /mnt/famfs; famfs attach")?;
        let check = ["famfs", "sum", "--check", "-", "/mnt/famfs/r0"];
        node.run(&Command::new(check).stdin(source.list()), LIMIT)?;
        cluster.end()?;
        source.verify(&pool, "r0", &source.directories()).map(drop)
    });
    ensure!(!took.is_zero(), "the copy did not end: no time is known to kill at");
    println!(
        "# boot, copy and check: {:.1} s, of it the copy {took:.1?}",
        start.elapsed().as_secs_f64()
    );

    let rounds = if artifacts.all { ALL_KILLS } else { KILLS };
    let directory = took / TREE.directories;
    let (mut complete, mut unfinished) = (0, 0);
    for round in 1..=rounds {
        if round.is_multiple_of(ROUNDS_PER_POOL) {
            pool.mkfs(&["--force"])?;
        }
        let within = f64::from(super::source::number(&mut random)) / f64::from(u32::MAX);
        let part = (f64::from(round - 1) + within) / f64::from(rounds);
        let moment = Moment::new(FIRST + (LAST - FIRST) * part, directory);
        let name = format!("kill {round}: what was reported complete is right");
        session.check(&name, || {
            let (reported, files) = kill(artifacts, &pool, &source, round, moment)?;
            complete += usize::from(reported > 0);
            unfinished += usize::from(files < source.files());
            Ok(())
        });
    }
    println!(
        "# of {rounds} kills {complete} left complete directories, {unfinished} missing files"
    );
    session.check("kills left both complete files and unfinished ones", || {
        // One kill may be late on a busy host; the others are still sufficient.
        let enough = usize::try_from(rounds)? - 1;
        ensure!(complete >= enough && unfinished >= enough, "{complete} and {unfinished}");
        Ok(())
    });
    Ok(())
}

/// When to kill a VM.
#[derive(Clone, Copy)]
struct Moment {
    /// The number of directories that must be reported as complete before.
    complete: usize,
    /// The time to wait after that.
    then: Duration,
}

impl Moment {
    /// The moment at which a part of the tree has been copied, given how long each directory takes.
    fn new(part: f64, directory: Duration) -> Self {
        let done = part * f64::from(TREE.directories);
        let complete = (0..TREE.directories).filter(|n| f64::from(n + 1) <= done).count();
        Self { complete, then: directory.mul_f64(done.fract()) }
    }
}

fn boot(artifacts: &Artifacts, pool: &Pool, source: &Source) -> Result<Cluster> {
    let member = Member::new("master", true).with_disk(source.disk.clone());
    let cluster = Cluster::start(artifacts, pool, MEMORY, vec![member])?;
    cluster.wait_ready(BOOT)?;
    source.mount(cluster.node("master")?)?;
    Ok(cluster)
}

/// Copies one directory after the other; the console, which the host keeps, says what is complete.
fn copying(round: u32) -> Command {
    let script = format!(
        "famfs mkdir /mnt/famfs/r{round}
        for dir in /run/source/*; do
            famfs cp -r $dir /mnt/famfs/r{round}
            echo complete: r{round}/${{dir##*/}} > /dev/console
        done"
    );
    Command::shell(&script)
}

/// Kills a VM while it copies. Returns the directories that it reported as complete, and the files
/// found.
fn kill(
    artifacts: &Artifacts,
    pool: &Pool,
    source: &Source,
    round: u32,
    moment: Moment,
) -> Result<(usize, usize)> {
    let mut cluster = boot(artifacts, pool, source)?;
    let node = cluster.remove("master")?;
    let pid = Pid::from_raw(node.vm.pid().cast_signed()).context("QEMU has no process number")?;
    thread::scope(|scope| {
        let node = &node;
        // It ends together with the VM; errors after that are expected.
        let copy = scope.spawn(move || node.vm.exec(&copying(round), LIMIT).is_ok());
        let start = Instant::now();
        while complete(node, round).is_ok_and(|names| names.len() < moment.complete)
            && !copy.is_finished()
        {
            thread::sleep(PAUSE);
        }
        thread::sleep(moment.then);
        let after = start.elapsed();
        let killed = kill_process(pid, Signal::KILL).context("cannot kill QEMU");
        let gone = node.vm.wait_exit(GONE);
        let finished = copy.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        killed?;
        ensure!(gone.is_some(), "QEMU is still there {} s after SIGKILL", GONE.as_secs());
        println!("# killed after {after:.1?}{}", if finished { ", behind the end" } else { "" });
        Ok(())
    })?;
    let complete = complete(&node, round)?;
    drop((node, cluster));
    pool.famfs(["fsck"]).context("the pool is not clean")?;
    let files = source.verify(pool, &format!("r{round}"), &complete)?;
    Ok((complete.len(), files))
}

/// The directories that the console reports as complete.
fn complete(node: &Node, round: u32) -> Result<BTreeSet<String>> {
    let text = fs::read(node.console_log()).context("cannot read the console")?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let prefix = format!("complete: r{round}/");
    let lines = text.lines().filter_map(|line| line.trim_end().rsplit_once(&prefix));
    Ok(lines.map(|(_, name)| name.to_owned()).collect())
}
