// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Time from power-on to a mounted pool, compared with the floor.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vhost_famfs::vm::{Command, Root};
use vm_tests::{Artifacts, BOOT, Cluster, Member, Pool, View};

use super::floor;
use crate::bench::Measurement;
use crate::bench::measurement::Better;
use crate::bench::sample::{columns, least, median};

/// Size of the pool and of the VM's memory.
const POOL: u64 = 512 << 20;
const MEMORY: u64 = 1 << 30;

/// How often to boot each.
const ROUNDS: usize = 9;

/// The profiles, and the limit for each as a multiple of the floor's time.
const PROFILES: [(Root, f64); 3] = [(Root::Disk, 1.6), (Root::Memory, 1.5), (Root::Initrd, 1.15)];

/// How often to check the floor's console.
const LOOK: Duration = Duration::from_millis(2);

/// Times from the start of QEMU until the VM has reached its goal, in seconds.
struct Times {
    /// Elapsed time.
    wall: f64,
    /// Host processor time, of all threads of QEMU.
    cpu: f64,
    /// Elapsed time until systemd has also started everything, if there is a systemd.
    started: f64,
}

/// Waits for systemd, which may not even be listening yet when the pool is mounted.
const STARTED: &str =
    "until [[ -S /run/systemd/private ]]; do sleep 0.1; done; systemctl is-system-running --wait";

/// Boots the floor and the profiles in turn, so that all run under the same conditions.
pub fn run(artifacts: &Artifacts, floor: &Artifacts) -> Result<Vec<Measurement>> {
    let pool = Pool::create(artifacts, POOL, POOL, View::Devdax)?;
    pool.mkfs(&[])?;
    let samples = columns(ROUNDS, || {
        let mut round = vec![to_shell(floor, &pool)?];
        for (root, _) in PROFILES {
            round.push(to_pool(artifacts, &pool, root)?);
        }
        Ok(round.iter().flat_map(|times| [times.wall, times.cpu, times.started]).collect())
    })?;
    // The times of the floor, then those of each profile.
    let (floor, profiles) = samples.split_at(3);
    let rows = PROFILES.iter().zip(profiles.chunks(3)).flat_map(|((root, goal), profile)| {
        let profile_name = root.profile();
        let row = |id: &str, what: &str, unit: &str, values: (f64, f64), goal: Option<f64>| {
            Measurement::new(
                &format!("boot.{profile_name}.{id}"),
                &format!("{profile_name}: {what}"),
                unit,
                values.0,
                ("kernel and busybox to its shell", values.1),
                (Better::Lower, goal),
            )
        };
        let both =
            |place: usize, one: fn(&[f64]) -> f64| (one(&profile[place]), one(&floor[place]));
        let times = median(&ratios(&profile[0], &floor[0]));
        let mut rows = vec![
            row("mounted", "to pool mounted, to the floor", "times", (times, 1.0), Some(*goal)),
            row("mounted.wall", "power-on to pool mounted", "s", both(0, median), None),
            row("mounted.best", &format!("the same, best of {ROUNDS}"), "s", both(0, least), None),
            row("mounted.cpu", "the same, QEMU's processor time", "s", both(1, median), None),
        ];
        if *root != Root::Initrd {
            rows.push(row("started", "until systemd has started all", "s", both(2, median), None));
        }
        rows
    });
    Ok(rows.collect())
}

/// Each round's time divided by the floor's time of the same round. This cancels out the machine's
/// speed, which changes between rounds.
fn ratios(values: &[f64], floor: &[f64]) -> Vec<f64> {
    values.iter().zip(floor).map(|(value, floor)| value / floor).collect()
}

/// The appliance, until its agent reports that the pool is mounted.
fn to_pool(artifacts: &Artifacts, pool: &Pool, root: Root) -> Result<Times> {
    let member = Member::new(root.profile(), true).with_root(root).in_threads();
    let cluster = Cluster::start(artifacts, pool, MEMORY, vec![member])?;
    let ready = cluster.wait_ready(BOOT)?;
    let node = &cluster.nodes()[0];
    let cpu = processor_time(node.vm.pid())?;
    if root != Root::Initrd {
        node.run(&Command::shell(STARTED), BOOT)?;
    }
    let started = node.vm.started().elapsed().as_secs_f64();
    cluster.end()?;
    Ok(Times { wall: ready[0].boot.as_secs_f64(), cpu, started })
}

/// The floor, until its shell has printed a line; then it is killed.
fn to_shell(floor: &Artifacts, pool: &Pool) -> Result<Times> {
    let member = Member::new("floor", true).with_root(Root::Initrd).in_threads();
    let cluster = Cluster::start(floor, pool, MEMORY, vec![member])?;
    let node = cluster.node("floor")?;
    loop {
        let console = fs::read_to_string(node.console_log()).unwrap_or_default();
        let wall = node.vm.started().elapsed();
        if console.contains(floor::MARK) {
            let (wall, cpu) = (wall.as_secs_f64(), processor_time(node.vm.pid())?);
            return Ok(Times { wall, cpu, started: wall });
        }
        ensure!(wall < BOOT && node.vm.exit_status().is_none(), "no shell: {console}");
        thread::sleep(LOOK);
    }
}

/// Processor time of a process in seconds: user and system time (proc_pid_stat(5), fields 14 and
/// 15).
fn processor_time(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let ticks = ticks(&text).with_context(|| format!("cannot parse {path}: {text}"))?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The sum of both fields. Field 2, a name in parentheses, may itself contain spaces and
/// parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::{processor_time, ratios, ticks};
    use crate::bench::sample::median;

    /// If a machine runs at half its speed in one round, times change but ratios do not.
    #[test]
    fn a_slow_round_is_slow_for_both() {
        let (floor, profile) = ([2.0, 4.0, 2.0], [3.0, 6.0, 2.5]);
        assert_eq!(ratios(&profile, &floor), [1.5, 1.5, 1.25]);
        assert_eq!(median(&ratios(&profile, &floor)), 1.5);
    }

    #[test]
    fn processor_time_is_read_from_stat() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 2 3 4 5 100 23 6 7 20 0 3 0 99\n";
        assert_eq!(ticks(stat), Some(123));
        assert_eq!(ticks("7 (a"), None);
        assert!(processor_time(std::process::id()).unwrap() >= 0.0);
    }
}
