// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Four VMs that write and read at the same time: each its own file, and all of them one file that
//! nobody writes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vhost_famfs::vm::Command;
use vm_tests::{Artifacts, BOOT, Cluster, Member, Node, Pool, Session, View};

use super::{MEMORY, text};

const POOL: u64 = 128 << 20;
const NAMES: [&str; 4] = ["one", "two", "three", "four"];
/// How much longer than planned a round may take, under emulation on a busy host.
const SLACK: Duration = Duration::from_secs(300);

/// Writes new random bytes into the file, flushes them, reads them back, and reads the common
/// file, until the time is over. Prints the number of rounds and the last checksum.
const ROUNDS: &str = "file=/mnt/famfs/$NAME rounds=0
    until ((SECONDS >= LIMIT)); do
        head -c 4M /dev/urandom > /tmp/data
        sum=$(sha256sum < /tmp/data)
        dd if=/tmp/data of=$file bs=1M conv=notrunc,fsync status=none
        found=$(sha256sum < $file)
        [[ $found == $sum ]] || { echo \"round $rounds: wrote $sum, read $found\" >&2; exit 1; }
        famfs verify --quiet --seed 7 --file /mnt/famfs/common
        rounds=$((rounds + 1))
    done
    echo $rounds ${sum%% *}";

/// The results of one VM.
struct Work {
    name: &'static str,
    rounds: u64,
    sum: String,
}

/// Boots the four VMs, lets them work, and compares the results in every VM and on the host.
pub fn scenario(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let pool = Pool::create(artifacts, POOL, POOL, View::Devdax)?;
    pool.mkfs(&[])?;
    pool.famfs(["creat", "--size", "8m", "--seed", "7", "/common"])?;
    for name in NAMES {
        pool.famfs(["creat", "--size", "4m", "--seed", "1", name])?;
    }
    let members = NAMES.map(|name| Member::new(name, name == NAMES[0]));
    let cluster = Cluster::start(artifacts, &pool, MEMORY, members.into())?;
    cluster.wait_ready(BOOT)?;
    let time = Duration::from_secs(if artifacts.all { 600 } else { 20 });
    let mut done = Vec::new();
    session.check(&format!("each reads what it wrote, for {} s", time.as_secs()), || {
        done = cluster.in_all(|node| work(node, time))?;
        let rounds: Vec<_> = done.iter().map(|work| work.rounds).collect();
        println!("# rounds of 4 MiB: {rounds:?}");
        ensure!(rounds.iter().all(|rounds| *rounds > 0), "a VM did nothing: {rounds:?}");
        Ok(())
    });
    session.check("each reads what the others wrote last", || {
        let read = |node: &Node| text(node, "cd /mnt/famfs && sha256sum one two three four");
        let expected: Vec<_> =
            done.iter().map(|Work { name, sum, .. }| format!("{sum}  {name}")).collect();
        for list in cluster.in_all(read)? {
            ensure!(list.lines().eq(expected.iter()), "expected {expected:?}, found {list}");
        }
        Ok(())
    });
    session.check("all four shut down in order", || cluster.end());
    session.check("the host finds the pool clean, with what they wrote", || {
        pool.famfs(["fsck"])?;
        pool.famfs(["verify", "--seed", "7", "--file", "/common"])?;
        let list = pool.famfs(["sum"])?;
        let list = String::from_utf8_lossy(&list);
        for Work { name, sum, .. } in &done {
            let line = format!("{sum}  {name}");
            ensure!(list.lines().any(|l| l == line), "no line {line:?} in:\n{list}");
        }
        Ok(())
    });
    Ok(())
}

fn work(node: &Node, time: Duration) -> Result<Work> {
    let name = NAMES.into_iter().find(|name| *name == node.member.name).context("a stranger")?;
    let limit = time.as_secs().to_string();
    let command = Command::shell(ROUNDS).env("NAME", name).env("LIMIT", limit);
    let output = node.run(&command, time + SLACK)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (rounds, sum) = said.trim().split_once(' ').with_context(|| format!("said {said:?}"))?;
    Ok(Work { name, rounds: rounds.parse()?, sum: sum.to_owned() })
}
