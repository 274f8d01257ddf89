// SPDX-License-Identifier: Apache-2.0 OR MIT
//! kill -9 at moments that are chosen by a seed: of a back-end, of a VM, of the launcher.

use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use famfs::write::prng::SeededBytes;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use vhost_famfs::pool::tidy_own_directory;
use vm_tests::{Artifacts, Session};

use super::program::{Program, until};

/// The seed for the moments; if it is not set, one is taken from the clock and printed.
const SEED: &str = "VHOST_FAMFS_SEED";

/// Number of rounds; each kills a back-end, a VM and a launcher.
const ROUNDS: u32 = 1;
const ALL_ROUNDS: u32 = 17;

/// Where the VM that is never killed counts.
const BEAT: &str = "beat";

/// How long the next heartbeat may take on a busy host.
const BEAT_LIMIT: Duration = Duration::from_secs(120);

/// The latest moment of a kill in a running cluster, and during a start.
const UP_MS: u32 = 1500;
const START_MS: u32 = 4000;

pub fn scenario(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let program = Program::new(artifacts)?;
    let seed = match std::env::var(SEED) {
        Ok(text) => text.parse().with_context(|| format!("{SEED}={text} is no 32-bit number"))?,
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos(),
    };
    println!("# {SEED}={seed}");
    let mut random = SeededBytes::new(seed);
    let rounds = if artifacts.all { ALL_ROUNDS } else { ROUNDS };
    for round in 1..=rounds {
        cluster(session, &program, round, &mut random)?;
        launcher(session, &program, round, &mut random)?;
    }
    Ok(())
}

/// Kills a back-end and a VM of a cluster. Meanwhile a third VM counts; no fourth VM is needed to
/// see that, because the host reads the count in the pool.
fn cluster(
    session: &mut Session,
    program: &Program<'_>,
    round: u32,
    random: &mut SeededBytes,
) -> Result<()> {
    let share = program.pools.path().join("share");
    std::fs::create_dir_all(&share)?;
    std::fs::write(share.join("file"), vec![7; 3 << 20])?;
    let share = share.to_string_lossy().into_owned();
    program.ok(&["up", "--vms", "3", "--share", &share])?;
    let state = program.state("default")?;
    let pool = state["pool"]["path"].as_str().context("no pool")?.to_owned();
    let mut beat = Beat::start(program, &pool)?;

    session.check(&format!("round {round}: a back-end is killed, its VM goes on"), || {
        let backend = pid(&state["vms"][2]["backend"])?;
        wait(random, UP_MS);
        kill_process(backend, Signal::KILL)?;
        until("ps sees it", BEAT_LIMIT, || Ok(program.ps()?.0["vms"][2]["status"] == "no-flush"))?;
        let (report, code) = program.ps()?;
        ensure!(code == Some(3) && report["status"] == "degraded", "{code:?} {report}");
        ensure!(report["vms"][2]["note"].to_string().contains("use `restart`"), "{report}");
        beat.goes_on()?;
        // Its memory is still the pool, and it follows the log.
        let exists = ["exec", "vm3", "--", "test", "-e", "/mnt/famfs/beat"];
        until("vm3 has the file", BEAT_LIMIT, || Ok(program.run(&exists)?.status.success()))?;
        let one = program.shell("vm3", "head -c 8 /mnt/famfs/beat")?;
        beat.goes_on()?;
        let two = program.shell("vm3", "head -c 8 /mnt/famfs/beat")?;
        ensure!(one != two, "vm3 reads {one:?} both times");
        Ok(())
    });
    session.check(&format!("round {round}: a VM is killed, the others go on"), || {
        let victim = pid(&state["vms"][1]["qemu"])?;
        wait(random, UP_MS);
        kill_process(victim, Signal::KILL)?;
        until("ps sees it", BEAT_LIMIT, || Ok(program.ps()?.0["vms"][1]["status"] == "ended"))?;
        let (report, code) = program.ps()?;
        ensure!(code == Some(3), "{code:?} {report}");
        ensure!(report["vms"][0]["status"] == "running", "{report}");
        ensure!(report["vms"][1]["pid"].is_null(), "{report}");
        beat.goes_on()?;
        let exec = program.run(&["exec", "vm2", "--", "true"])?;
        ensure!(exec.status.code() == Some(125), "a VM that has ended runs a command: {exec:?}");
        Ok(())
    });
    beat.stop()?;
    let kept = format!("{pool}.kept");
    session.check(&format!("round {round}: down tells the truth, and the pool is clean"), || {
        // A second name for its file, to examine the file afterwards.
        std::fs::hard_link(&pool, &kept)?;
        let report = program.json(&["down", "--timeout", "180", "--json"])?;
        let ends: Vec<_> = (0..3).map(|index| report["vms"][index]["end"].clone()).collect();
        ensure!(ends[0] == "orderly" && ends[1] == "was-dead", "{report}");
        ensure!(ends[2] != "was-dead" && ends[2] != "not-started", "{report}");
        program.check_nothing_left(&state["instance"])?;
        let removed = report["pool_removed"] == true;
        ensure!(removed && !Path::new(&pool).exists(), "the pool is left: {report}");
        let fsck = program.famfs(kept.as_ref(), &["fsck"])?;
        ensure!(fsck.status.success(), "the pool is not clean: {fsck:?}");
        let file = program.famfs(kept.as_ref(), &["cat", "file"])?;
        ensure!(file.stdout == vec![7; 3 << 20], "a file is not what it was");
        Ok(())
    });
    std::fs::remove_file(&kept).with_context(|| format!("cannot remove {kept}"))?;
    // `down` could not remove it, because of that name.
    Path::new(&pool).parent().map(tidy_own_directory);
    Ok(())
}

/// Kills `up` at some moment during a start.
fn launcher(
    session: &mut Session,
    program: &Program<'_>,
    round: u32,
    random: &mut SeededBytes,
) -> Result<()> {
    let pool = program.pools.path().join("half");
    let pool_name = pool.to_string_lossy().into_owned();
    let words = ["up", "--vms", "2", "--name", "half", "--pool", &pool_name, "--size", "64M"];
    let mut up = program.command(&words).stderr(Stdio::null()).stdout(Stdio::null()).spawn()?;
    // Shortly after it has taken the name, so that there is something to report.
    let begun =
        until("up begins", BEAT_LIMIT, || Ok(program.state("half").is_ok() || ended(&mut up)?));
    wait(random, START_MS);
    let _ = up.kill();
    up.wait()?;
    session.check(&format!("round {round}: the launcher is killed, nothing stays"), || {
        begun?;
        let state = program.state("half")?;
        let (report, code) = program.ps()?;
        let told = report["status"].as_str().unwrap_or_default().to_owned();
        // On a fast host, it may have finished.
        ensure!(told == "interrupted" && code == Some(3) || told == "up", "{code:?} {report}");
        let again = program.run(&words)?;
        // Of a cluster that is up, it is a change of nothing.
        let expected = if told == "up" { 0 } else { 1 };
        ensure!(again.status.code() == Some(expected), "a second start: {again:?}");
        let down = program.json(&["down", "--timeout", "5", "--json"])?;
        // A pool that was not created yet could not be removed.
        ensure!(told == "up" || !pool.exists(), "{told}, but the pool is left: {down}");
        ensure!(told != "up" || down["pool_removed"] == false, "{down}");
        program.check_nothing_left(&state["instance"])
    });
    match std::fs::remove_file(&pool) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn ended(child: &mut Child) -> Result<bool> {
    Ok(child.try_wait()?.is_some())
}

/// Waits for a random part of a duration.
fn wait(random: &mut SeededBytes, most_ms: u32) {
    let mut bytes = [0; 4];
    random.fill(&mut bytes);
    let part = u64::from(u32::from_le_bytes(bytes) % most_ms);
    println!("# kill after {part} ms");
    thread::sleep(Duration::from_millis(part));
}

fn pid(process: &Value) -> Result<Pid> {
    let number = process["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    number.and_then(Pid::from_raw).with_context(|| format!("no process: {process}"))
}

/// A VM that stores a count into a file of the pool in an endless loop.
struct Beat<'p> {
    program: &'p Program<'p>,
    pool: &'p str,
    counter: Child,
}

impl<'p> Beat<'p> {
    fn start(program: &'p Program<'p>, pool: &'p str) -> Result<Self> {
        program.shell("vm1", "famfs creat -s 2M /mnt/famfs/beat >&2")?;
        let script = "i=10000000; while :; do i=$((i + 1)); \
                      printf %d $i 1<>/mnt/famfs/beat; done";
        let mut command = program.command(&["exec", "-n", "vm1", "--", "bash", "-c", script]);
        let counter = command.stdout(Stdio::null()).spawn()?;
        let beat = Self { program, pool, counter };
        beat.goes_on()?;
        Ok(beat)
    }

    /// Waits until the host sees the count change.
    fn goes_on(&self) -> Result<()> {
        let before = self.count()?;
        until("the next store of vm1", BEAT_LIMIT, || Ok(self.count()? > before))
    }

    fn count(&self) -> Result<u64> {
        let output = self.program.famfs(self.pool.as_ref(), &["cat", BEAT])?;
        ensure!(output.status.success(), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout[..8]).into_owned();
        // The first store may still be to come.
        Ok(text.parse().unwrap_or(0))
    }

    fn stop(&mut self) -> Result<()> {
        if ended(&mut self.counter)? {
            bail!("the command that counts has ended");
        }
        self.counter.kill()?;
        self.counter.wait()?;
        Ok(())
    }
}

impl Drop for Beat<'_> {
    fn drop(&mut self) {
        let _ = self.counter.kill();
        let _ = self.counter.wait();
    }
}
