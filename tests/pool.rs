// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The famfs tools in VMs: a reader that follows the master, many files, spread files, a host that
//! writes beside the master, and a master that is killed during a copy.

#[path = "pool/host.rs"]
mod host;
#[path = "pool/kill.rs"]
mod kill;
#[path = "pool/latency.rs"]
mod latency;
#[path = "pool/reclaim.rs"]
mod reclaim;
#[path = "pool/replace.rs"]
mod replace;
#[path = "pool/slots.rs"]
mod slots;
#[path = "pool/source.rs"]
mod source;
#[path = "pool/storm.rs"]
mod storm;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vhost_famfs::vm::{Command, Output};
use vm_tests::{Artifacts, BOOT, Cluster, Member, Node, Pool, Session, View, health};

use source::{MOUNT_POINT, Source, Tree};

const POOL: u64 = 3 << 30;
const MEMORY: u64 = 768 << 20;
/// Bytes of host memory that the files occupy; the rest of the pool remains a hole.
const CONTENT: u64 = 512 << 20;
/// The tree to copy.
const TREE: Tree = Tree { directories: 100, files: 10, largest: 32 << 10 };
/// A command in a guest, under emulation on a busy host.
const LIMIT: Duration = Duration::from_secs(300);

fn main() -> Result<ExitCode> {
    let artifacts = Artifacts::from_env()?;
    let mut session = Session::from_args()?;
    session.scenario("a reader follows the master", |s| follow(s, &artifacts));
    session.scenario("a killed master", |s| kill::scenario(s, &artifacts));
    session.scenario("memory comes back", |s| reclaim::scenario(s, &artifacts));
    session.scenario("slots come back", |s| slots::scenario(s, &artifacts));
    Ok(session.finish())
}

/// A master that creates files, and a reader that only watches.
fn follow(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let pool = Pool::create(artifacts, POOL, CONTENT, View::Devdax)?;
    pool.mkfs(&[])?;
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let source = Source::make(artifacts, dir.path(), TREE)?;
    let members = vec![
        Member::new("master", true).with_disk(source.disk.clone()),
        Member::new("reader", false),
    ];
    let mut cluster = Cluster::start(artifacts, &pool, MEMORY, members)?;
    cluster.wait_ready(BOOT)?;
    cluster.in_all(Node::wait_watch)?;
    wake_ups(session, &mut cluster, &pool)?;
    let (master, reader) = (cluster.node("master")?, cluster.node("reader")?);
    // Before the many files, which fill the first buckets.
    session.check("spread files read back right, in every VM and on the host", || {
        for (seed, strips) in [(11, 2), (12, 3), (13, 8)] {
            let name = format!("spread{strips}");
            let create =
                format!("famfs creat -s 21m -S {seed} -B 16 -N {strips} -C 2m /mnt/famfs/{name}");
            shell(master, &create)?;
            reader.wait_for(&format!("test -e /mnt/famfs/{name}"))?;
            let seed = seed.to_string();
            for node in [master, reader] {
                shell(node, &format!("famfs verify -S {seed} -f /mnt/famfs/{name}"))?;
            }
            pool.famfs(["verify", "-S", &seed, "-f", &format!("/{name}")])?;
            let map: Value = serde_json::from_slice(&pool.famfs(["ls", "--json", &name])?)?;
            let map = &map["entries"][0]["map"];
            let found = map["extents"].as_array().map_or(0, Vec::len);
            ensure!(map["type"] == "interleaved" && found == strips, "{map}");
        }
        Ok(())
    });
    session.check("1,000 files in 100 directories appear in the reader, and are right", || {
        source.mount(master)?;
        shell(master, "famfs mkdir /mnt/famfs/tree")?;
        shell(master, &format!("famfs cp -r {MOUNT_POINT}/. /mnt/famfs/tree"))?;
        let copied = Instant::now();
        reader.wait_for("[[ $(find /mnt/famfs/tree -type f | wc -l) == 1000 ]]")?;
        println!("# all are visible {:.1?} after the end of the copy", copied.elapsed());
        check_tree(reader, &source)
    });
    session.check("doctor finds both healthy, and files mapped by 2 MiB", || {
        shell(master, "famfs creat -s 4m /mnt/famfs/large")?;
        reader.wait_for("test -e /mnt/famfs/large")?;
        for node in [master, reader] {
            let output = shell(node, health::DOCTOR)?;
            health::check(&node.member.name, &output.stdout)?;
        }
        Ok(())
    });
    session.check("the host changes names while the VMs have the pool", || {
        host::changes_names(&pool, master, reader)
    });
    session.check("a file that is replaced stays with who has it open or mapped", || {
        replace::leaves_the_old_file(&pool, master, reader)
    });
    session.check("a file that is replaced is read as old or new", || {
        replace::is_never_seen_in_part(&pool, master, reader)
    });
    session.check("host and master add files in turn, and none is lost", || {
        host::takes_turns(&pool, master, reader)
    });
    session.check("the master goes on after a command of the host was killed", || {
        host::is_killed(&pool, master)
    });
    session.check("the host knows when every VM has what it published", || {
        host::knows_who_has_it(&pool, master, reader)
    });
    session.check("umount(8) ends the watch, and after a new mount all is there again", || {
        shell(reader, "umount /mnt/famfs")?;
        // What is still ending would not start again.
        reader.wait_for("[[ $(systemctl show -P ActiveState famfs-watch) == inactive ]]")?;
        shell(reader, "[[ $(systemctl show -P Result famfs-watch) == success ]]")?;
        let doctor = reader.vm.exec(&Command::new(["famfs", "doctor"]), LIMIT)?;
        let text = String::from_utf8_lossy(&doctor.stdout).into_owned();
        ensure!(!doctor.status.success() && text.contains("fix: famfs attach"), "{text}");
        shell(reader, "famfs attach && systemctl start famfs-watch")?;
        check_tree(reader, &source)
    });
    session.check(
        "a VM that takes entries back for a while does not end the others' watch",
        || {
            // The number of published entries, after the info area and the superblock.
            let file = File::options().read(true).write(true).open(pool.path())?;
            let (at, mut entries) = ((4 << 20) + 40, [0; 8]);
            file.read_exact_at(&mut entries, at)?;
            file.write_all_at(&[0; 8], at)?;
            reader.wait_console("the log was rewritten")?;
            reader.wait_for(
                "systemctl show -P StatusText famfs-watch | grep 'cannot follow the log'",
            )?;
            // For longer than the watch's patience.
            shell(reader, "sleep 12; systemctl is-active famfs-watch")?;
            file.write_all_at(&entries, at)?;
            reader.wait_console("the log can be followed again")?;
            shell(master, "famfs creat -s 2m /mnt/famfs/afterwards")?;
            reader.wait_for("test -e /mnt/famfs/afterwards")
        },
    );
    session.check("a file system that is made anew ends the watch with a word", || {
        shell(master, "famfs umount /mnt/famfs && famfs mkfs --force /dev/dax0.0")?;
        reader.wait_for("[[ $(systemctl show -P ExecMainStatus famfs-watch) == 3 ]]")?;
        reader.wait_console("the file system was formatted again")?;
        shell(reader, "famfs umount /mnt/famfs && famfs attach")?;
        shell(reader, "[[ ! -e /mnt/famfs/tree ]]").map(drop)
    });
    session.check("memory that is taken away ends the watch with an error", || {
        shell(reader, "systemctl start famfs-watch")?;
        shell(reader, "echo dax0.0 > /sys/bus/dax/drivers/fsdev_dax/unbind")?;
        reader.wait_for("[[ $(systemctl show -P ExecMainStatus famfs-watch) == 1 ]]")?;
        let console = reader.wait_console("cannot read the log")?;
        let told = console.matches("cannot read the log").count();
        ensure!(told == 1, "the console says it {told} times");
        shell(reader, "famfs umount /mnt/famfs").map(drop)
    });
    session.check("all shut down in order", || cluster.end());
    Ok(())
}

/// How a watch learns what others publish.
fn wake_ups(session: &mut Session, cluster: &mut Cluster, pool: &Pool) -> Result<()> {
    session.check("a VM without a keeper looks by itself, until there is one again", || {
        latency::without_keeper(cluster, pool)
    });
    let (master, reader) = (cluster.node("master")?, cluster.node("reader")?);
    session.check("a new file is visible in the other VM", || latency::check(pool, master, reader));
    session.check("a watch that waits looks rarely", || latency::idle(reader));
    session.check("what nobody tells is seen nevertheless", || latency::unheard(pool, reader));
    session.check("a guest that floods its port harms nobody", || {
        latency::flood(pool, reader, master)
    });
    Ok(())
}

/// Checks all files by their checksums, and again by the seeds from which they were created.
fn check_tree(node: &Node, source: &Source) -> Result<()> {
    let check = ["famfs", "sum", "--check", "-", "/mnt/famfs/tree"];
    node.run(&Command::new(check).stdin(source.list()), LIMIT)?;
    let files = (0..TREE.directories).flat_map(|d| (0..TREE.files).map(move |f| (d, f)));
    let multi = files.map(|(d, f)| format!("-m/mnt/famfs/tree/d{d}/f{f},{}", TREE.seed(d, f)));
    let verify = ["famfs", "verify", "--quiet"].map(String::from).into_iter().chain(multi);
    node.run(&Command::new(verify), LIMIT).map(drop)
}

/// Runs a shell script, which must succeed.
fn shell(node: &Node, script: &str) -> Result<Output> {
    node.run(&Command::shell(script), LIMIT)
}
