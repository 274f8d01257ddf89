// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The master's VM is killed in the middle of a copy: what was reported complete is there, what
//! is there is right, and the next boot goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command as HostCommand;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use famfs::prng::SeededBytes;
use rustix::process::{Pid, Signal, kill_process};
use vhost_famfs::launch::{Command, Disk};
use vm_tests::{Artifacts, BOOT, Cluster, Member, Node, Pool, Session, View};

use super::{LIMIT, MEMORY, shell};

/// The pool, and the host memory that is in use of it between two times that it is made anew.
const POOL: u64 = 2 << 30;
const CONTENT: u64 = 512 << 20;
const ROUNDS_PER_POOL: u32 = 4;
/// How often the VM is killed: in continuous integration, and with `--all`.
const KILLS: u32 = 3;
const ALL_KILLS: u32 = 20;

/// The tree that is copied: directories, files in each, and the most bytes of a file.
const DIRECTORIES: u32 = 10;
const FILES: u32 = 10;
const LARGEST: u32 = 1 << 20;

/// The serial number of the disk with the tree.
const DISK: &str = "source";
/// The seed of the times of the kills; without it one is taken from the clock, and printed.
const SEED: &str = "VHOST_FAMFS_SEED";
/// How long QEMU may take to be gone.
const GONE: Duration = Duration::from_secs(30);

/// Copies once in full, to see that all works and how long it takes; then is killed at random.
pub fn scenario(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let source = Source::make(artifacts, dir.path())?;
    let pool = Pool::create(artifacts, POOL, CONTENT, View::Devdax)?;
    pool.mkfs(&[])?;
    let seed = seed()?;
    println!("# {SEED}={seed}");
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
        node.run(&Command::new(check).stdin(source.list(|_| true)), LIMIT)?;
        cluster.end()?;
        source.verify(&pool, 0, &source.directories())
    });
    ensure!(!took.is_zero(), "the copy did not end: no time is known to kill at");
    println!(
        "# boot, copy and check: {:.1} s, of it the copy {took:.1?}",
        start.elapsed().as_secs_f64()
    );

    for round in 1..=if artifacts.all { ALL_KILLS } else { KILLS } {
        if round.is_multiple_of(ROUNDS_PER_POOL) {
            pool.mkfs(&["--force"])?;
        }
        let moment = took.mul_f64(f64::from(number(&mut random)) / f64::from(u32::MAX));
        let name = format!("kill {round}: what was reported complete is right");
        session.check(&name, || kill(artifacts, &pool, &source, round, moment));
    }
    Ok(())
}

fn seed() -> Result<u32> {
    match std::env::var(SEED) {
        Ok(text) => text.parse().with_context(|| format!("{SEED}={text} is no 32-bit number")),
        Err(_) => Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos()),
    }
}

fn number(random: &mut SeededBytes) -> u32 {
    let mut bytes = [0; 4];
    random.fill(&mut bytes);
    u32::from_le_bytes(bytes)
}

fn boot(artifacts: &Artifacts, pool: &Pool, source: &Source) -> Result<Cluster> {
    let member = Member::new("master", true).with_disk(source.disk.clone());
    let cluster = Cluster::start(artifacts, pool, MEMORY, vec![member])?;
    cluster.wait_ready(BOOT)?;
    let mount = format!(
        "for disk in /sys/block/vd*; do
            if [[ $(< $disk/serial) == {DISK} ]]; then
                mkdir -p /run/source && mount -t erofs -o ro /dev/${{disk##*/}} /run/source && exit 0
            fi
        done
        echo 'no disk {DISK}' >&2; exit 1"
    );
    shell(cluster.node("master")?, &mount)?;
    Ok(cluster)
}

/// Copies directory after directory; the console, which the host keeps, says what is complete.
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

fn kill(
    artifacts: &Artifacts,
    pool: &Pool,
    source: &Source,
    round: u32,
    moment: Duration,
) -> Result<()> {
    let mut cluster = boot(artifacts, pool, source)?;
    let node = cluster.remove("master")?;
    let pid = Pid::from_raw(node.vm.pid().cast_signed()).context("QEMU has no process number")?;
    thread::scope(|scope| {
        let node = &node;
        // It ends when the VM is gone; what it says then is no news.
        let copy = scope.spawn(move || node.vm.exec(&copying(round), LIMIT).is_ok());
        thread::sleep(moment);
        let killed = kill_process(pid, Signal::KILL).context("cannot kill QEMU");
        let gone = node.vm.wait_exit(GONE);
        let finished = copy.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        killed?;
        ensure!(gone.is_some(), "QEMU is still there {} s after SIGKILL", GONE.as_secs());
        println!("# killed after {moment:.1?}{}", if finished { ", behind the end" } else { "" });
        Ok(())
    })?;
    let complete = complete(&node, round)?;
    drop((node, cluster));
    pool.famfs(["fsck"]).context("the pool is not clean")?;
    source.verify(pool, round, &complete)
}

/// The directories that the console says are complete.
fn complete(node: &Node, round: u32) -> Result<BTreeSet<String>> {
    let text = fs::read(node.console_log()).context("cannot read the console")?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let prefix = format!("complete: r{round}/");
    let lines = text.lines().filter_map(|line| line.trim_end().rsplit_once(&prefix));
    Ok(lines.map(|(_, name)| name.to_owned()).collect())
}

/// The tree that is copied, as a disk, and its checksums.
struct Source {
    disk: Disk,
    /// SHA-256 by the path in the tree.
    sums: BTreeMap<String, String>,
}

impl Source {
    fn make(artifacts: &Artifacts, dir: &Path) -> Result<Self> {
        let tree = dir.join("tree");
        let mut random = SeededBytes::new(1);
        for directory in 0..DIRECTORIES {
            let directory = tree.join(format!("d{directory}"));
            fs::create_dir_all(&directory).context("cannot make the source")?;
            for file in 0..FILES {
                let seed = number(&mut random);
                let mut bytes = vec![0; 1 + usize::try_from(seed % LARGEST)?];
                SeededBytes::new(seed).fill(&mut bytes);
                fs::write(directory.join(format!("f{file}")), bytes)
                    .context("cannot make the source")?;
            }
        }
        let disk = Disk { path: dir.join("source.erofs"), serial: DISK.to_owned() };
        output(HostCommand::new(&artifacts.mkfs_erofs).arg("--quiet").arg(&disk.path).arg(&tree))?;
        let list =
            output(HostCommand::new(artifacts.programs.join("famfs")).arg("sum").arg(&tree))?;
        let sums: BTreeMap<String, String> = list
            .lines()
            .filter_map(|line| line.split_once("  "))
            .map(|(sum, path)| (path.to_owned(), sum.to_owned()))
            .collect();
        ensure!(sums.len() == usize::try_from(DIRECTORIES * FILES)?, "sum lists {}", sums.len());
        Ok(Self { disk, sums })
    }

    fn directories(&self) -> BTreeSet<String> {
        self.sums.keys().filter_map(|path| Some(path.split_once('/')?.0.to_owned())).collect()
    }

    /// The checksums of some of the files, as `famfs sum` reads them.
    fn list(&self, wanted: impl Fn(&str) -> bool) -> String {
        let wanted = self.sums.iter().filter(|(path, _)| wanted(path));
        wanted.map(|(path, sum)| format!("{sum}  {path}\n")).collect()
    }

    /// Checks that a round's files are all right, and that those of the complete directories
    /// are all there.
    fn verify(&self, pool: &Pool, round: u32, complete: &BTreeSet<String>) -> Result<()> {
        let sums = String::from_utf8(pool.famfs(["sum"])?)?;
        let prefix = format!("r{round}/");
        let mut found = BTreeSet::new();
        for (sum, path) in sums.lines().filter_map(|line| line.split_once("  ")) {
            let Some(path) = path.strip_prefix(&prefix) else { continue };
            let expected = self.sums.get(path).with_context(|| format!("{path} has no source"))?;
            ensure!(expected == sum, "{path}: SHA-256 {sum}, expected {expected}");
            found.insert(path);
        }
        println!("# {} files, {} directories reported complete", found.len(), complete.len());
        for path in self.sums.keys() {
            let reported = path.split_once('/').is_some_and(|(dir, _)| complete.contains(dir));
            ensure!(!reported || found.contains(path.as_str()), "{path} was complete, and is lost");
        }
        Ok(())
    }
}

fn output(command: &mut HostCommand) -> Result<String> {
    let program = command.get_program().to_owned();
    let output = command.output().with_context(|| format!("cannot run {}", program.display()))?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{}: {}: {stderr}", program.display(), output.status);
    Ok(String::from_utf8(output.stdout)?)
}
