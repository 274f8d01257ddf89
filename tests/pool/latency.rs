// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The cost of a watch: the time until a new file is visible in another VM, how often it looks, and
//! processor time.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use vm_tests::{Cluster, Idle, Node, Pool, RunningRelay, watch_latency};

use super::shell;

/// How many seconds to observe an idle watch.
const IDLE: u32 = 10;

/// Most looks in a second of a watch that is told when others publish, and least of one that is
/// not. These are counts, of about 3 and 200 on a host that is not busy.
const TOLD: f64 = 12.0;
const UNTOLD: f64 = 15.0;

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

fn observe(node: &Node, what: &str) -> Result<f64> {
    let Idle { watch, looks, vm } = Idle::of(node, IDLE)?;
    println!(
        "# {what}: the watch looks {looks:.1} times a second and takes {watch:.2} % of an emulated \
         processor; its VM takes {vm:.1} %"
    );
    Ok(looks)
}

/// While nothing happens, a watch that is told when others publish rarely looks.
pub fn idle(node: &Node) -> Result<()> {
    let looks = observe(node, "told by others")?;
    ensure!(looks <= TOLD, "{looks:.1} looks a second, expected at most {TOLD}");
    Ok(())
}

/// A VM whose keeper has been killed looks by itself, until there is one again.
pub fn without_keeper(cluster: &mut Cluster, pool: &Pool) -> Result<()> {
    cluster.set_relay("reader", None)?;
    let (master, reader) = (cluster.node("master")?, cluster.node("reader")?);
    let looks = observe(reader, "without a keeper")?;
    ensure!(looks >= UNTOLD, "{looks:.1} looks a second, expected at least {UNTOLD}");
    shell(master, "famfs mkdir /mnt/famfs/unheard")?;
    reader.wait_for("[[ -d /mnt/famfs/unheard ]]")?;
    let relay = RunningRelay::start(pool, reader.wake_port())?;
    cluster.set_relay("reader", Some(relay))?;
    idle(cluster.node("reader")?)
}

/// A publisher that can wake nobody is seen nevertheless.
pub fn unheard(pool: &Pool, reader: &Node) -> Result<()> {
    // Another runtime directory, as that of another user.
    let dir = tempfile::tempdir()?;
    let mut command = pool.famfs_command(["mkdir", "/silently"]);
    let made = command.env("XDG_RUNTIME_DIR", dir.path()).output()?;
    ensure!(made.status.success(), "{made:?}");
    reader.wait_for("[[ -d /mnt/famfs/silently ]]")
}

/// A guest that writes to its port without end keeps nobody from being woken. It does not read its
/// port either.
pub fn flood(pool: &Pool, bad: &Node, good: &Node) -> Result<()> {
    shell(
        bad,
        "
        systemctl stop famfs-watch
        for port in /sys/class/virtio-ports/*; do
            [[ $(< $port/name) != org.vhost-famfs.wake ]] || wake=/dev/${port##*/}
        done
        # Without the streams of this command, which would not end before it.
        cat /dev/zero > $wake 2> /tmp/flood < /dev/null &
        echo $! > /tmp/flood.pid",
    )?;
    thread::sleep(Duration::from_secs(1));
    let checked = beside_a_flood(pool, bad, good);
    // Also if that failed: what follows needs both watches.
    shell(bad, "kill $(< /tmp/flood.pid); systemctl start famfs-watch")?;
    checked?;
    bad.wait_for("[[ -d /mnt/famfs/beside-a-flood ]]")?;
    idle(bad)
}

fn beside_a_flood(pool: &Pool, bad: &Node, good: &Node) -> Result<()> {
    // How often it is woken is not tested here: a busy host wakes it seldom anyway. The relay's own
    // tests count that.
    observe(good, "beside a guest that floods its port")?;
    shell(bad, "kill -0 $(< /tmp/flood.pid)")?;
    pool.famfs(["mkdir", "/beside-a-flood"])?;
    good.wait_for("[[ -d /mnt/famfs/beside-a-flood ]]")
}
