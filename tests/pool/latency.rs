// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The cost of a watch: the time until a new file is visible in another VM, and processor time.

use anyhow::{Context, Result, bail, ensure};
use vm_tests::{Node, Pool, watch_latency};

use super::shell;

/// How many seconds to observe an idle watch, and the units of its processor time per second
/// (USER_HZ of proc_pid_stat(5)).
const IDLE: f64 = 10.0;
const TICKS: f64 = 100.0;

/// Per cent of a processor that it may use, and how often to measure.
const MOST: f64 = 25.0;
const LOOKS: usize = 6;

/// Measures and prints, and requires only what a busy host can achieve.
pub fn check(pool: &Pool, master: &Node, reader: &Node) -> Result<()> {
    let times = watch_latency(pool, master, reader)?;
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

/// How much of a processor the watch uses while nothing happens. A busy host can only increase
/// this, so the minimum of several measurements counts.
pub fn idle(node: &Node) -> Result<()> {
    let script = format!(
        "
        pid=$(systemctl show --property=MainPID --value famfs-watch)
        ticks() {{ read -ra stat < /proc/$pid/stat; echo $((stat[13] + stat[14])); }}
        sleep 1; before=$(ticks); sleep {IDLE}; echo $(($(ticks) - before))"
    );
    let mut least = f64::INFINITY;
    for _ in 0..LOOKS {
        let output = shell(node, &script)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let ticks: f64 =
            text.trim().parse().with_context(|| format!("unexpected output: {text}"))?;
        let share = ticks / (TICKS * IDLE) * 100.0;
        println!("# an idle watch takes {share:.1} % of an emulated processor");
        least = least.min(share);
        if least < MOST {
            return Ok(());
        }
    }
    bail!("{least:.1} % at least, expected less than {MOST} %")
}
