// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host changes names while virtual machines have the pool.

use std::process::Stdio;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vm_tests::{Node, Pool};

use super::{LIMIT, shell};

/// Files that host and master add at the same time.
const EACH: usize = 30;

/// What the host does to names is seen in every VM, while the master's watch has the lease.
pub fn changes_names(pool: &Pool, master: &Node, reader: &Node) -> Result<()> {
    let dir = tempfile::tempdir().context("no temporary directory")?;
    std::fs::create_dir(dir.path().join("d"))?;
    std::fs::write(dir.path().join("d/f"), b"from the host")?;
    std::os::unix::fs::symlink("f", dir.path().join("d/link"))?;
    let source = dir.path().join("d");
    let source = source.to_str().context("a name that is not text")?;
    let start = Instant::now();
    pool.famfs(["cp", "-r", "--atomic", source, "/host"])?;
    println!("# a copy on the host, beside a watch that had the lease: {:.1?}", start.elapsed());
    pool.famfs(["mv", "/host", "/moved"])?;
    pool.famfs(["ln", "/moved/f", "/moved/hard"])?;
    pool.famfs(["chmod", "0640", "/moved/f"])?;
    pool.famfs(["mkdir", "/moved/empty"])?;
    for node in [master, reader] {
        node.wait_for("[[ -d /mnt/famfs/moved/empty && ! -e /mnt/famfs/host ]]")?;
        let text = shell(node, "cd /mnt/famfs/moved && cat f hard link && stat -c %a:%h f")?;
        let expected = "from the hostfrom the hostfrom the host640:2\n";
        let found = String::from_utf8_lossy(&text.stdout).into_owned();
        ensure!(found == expected, "{}: {found:?}, expected {expected:?}", node.member.name);
    }
    // The master goes on where the host has ended, and the host after it.
    shell(master, "famfs mv /mnt/famfs/moved/f /mnt/famfs/moved/g")?;
    pool.famfs(["rm", "-r", "/moved"])?;
    for node in [master, reader] {
        node.wait_for("[[ ! -e /mnt/famfs/moved ]]")?;
    }
    Ok(())
}

/// Host and master add files at the same time: each waits for the other, and nothing is lost.
pub fn takes_turns(pool: &Pool, master: &Node, reader: &Node) -> Result<()> {
    pool.famfs(["mkdir", "/turns"])?;
    master.wait_for("[[ -d /mnt/famfs/turns ]]")?;
    let start = Instant::now();
    thread::scope(|scope| {
        let guest = scope.spawn(|| {
            let script = format!(
                "for n in $(seq {EACH}); do famfs creat -s 4k -S $n /mnt/famfs/turns/guest$n || exit; done"
            );
            shell(master, &script)
        });
        for n in 1..=EACH {
            let (seed, name) = (n.to_string(), format!("/turns/host{n}"));
            pool.famfs(["creat", "-s", "4k", "-S", &seed, &name])?;
        }
        guest.join().map_err(|_| anyhow::anyhow!("the master's thread panicked"))?.map(drop)
    })?;
    println!(
        "# {EACH} files of the host and {EACH} of the master in turn: {:.1?}",
        start.elapsed()
    );
    pool.famfs(["fsck"])?;
    for node in [master, reader] {
        node.wait_for(&format!("[[ $(ls /mnt/famfs/turns | wc -l) == {} ]]", 2 * EACH))?;
        let verify = format!(
            "cd /mnt/famfs/turns; for n in $(seq {EACH}); do for who in host guest; do \
             famfs verify --quiet -S $n -f $who$n || exit; done; done"
        );
        shell(node, &verify)?;
    }
    Ok(())
}

/// A command of the host that is killed leaves the lease, the request and its locks behind: the
/// master goes on after the lease has expired.
pub fn is_killed(pool: &Pool, master: &Node) -> Result<()> {
    // It has the lease while it waits for an archive that never comes.
    let mut import = pool.famfs_command(["import"]).stdin(Stdio::piped()).spawn()?;
    let deadline = Instant::now() + LIMIT;
    loop {
        let role = pool.famfs(["role", "--json"])?;
        let role: Value = serde_json::from_slice(&role)?;
        if role["lease"]["state"] == "ours" {
            break;
        }
        ensure!(Instant::now() < deadline, "the host never had the lease");
        ensure!(import.try_wait()?.is_none(), "the command ended before it could be killed");
    }
    import.kill()?;
    import.wait()?;
    shell(master, "famfs mkdir /mnt/famfs/after-a-kill")?;
    pool.famfs(["fsck"]).map(drop)
}

/// `publish --wait-all` returns when every VM shows all that the host has published, and names the
/// VM that does not.
pub fn knows_who_has_it(pool: &Pool, master: &Node, reader: &Node) -> Result<()> {
    for n in 0..10 {
        pool.famfs(["mkdir", &format!("/known{n}")])?;
        let start = Instant::now();
        pool.famfs(["publish", "--wait-all", "--members", "2", "--timeout", "100"])?;
        println!("# all members have it after {:.1?}", start.elapsed());
        for node in [master, reader] {
            shell(node, &format!("[[ -d /mnt/famfs/known{n} ]]"))?;
        }
    }
    shell(reader, "kill -STOP $(systemctl show -P MainPID famfs-watch)")?;
    pool.famfs(["mkdir", "/late"])?;
    let publish = ["publish", "--wait-all", "--timeout", "2", "--json"];
    let stopped = pool.famfs_command(publish).output()?;
    shell(reader, "kill -CONT $(systemctl show -P MainPID famfs-watch)")?;
    ensure!(stopped.status.code() == Some(3), "{stopped:?}");
    let report: Value = serde_json::from_slice(&stopped.stdout)?;
    let role = shell(reader, "famfs role --json")?;
    let role: Value = serde_json::from_slice(&role.stdout)?;
    let behind = &report["behind"];
    ensure!(
        behind.as_array().is_some_and(|behind| behind.len() == 1)
            && behind[0]["system"] == role["system"]
            && behind[0]["state"] == "silent",
        "{report}"
    );
    pool.famfs(["publish", "--wait-all", "--members", "2", "--timeout", "100"])?;
    shell(reader, "[[ -d /mnt/famfs/late ]]").map(drop)
}
