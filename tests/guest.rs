// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Several VMs on one pool, from host to guest and back.

#[path = "guest/clones.rs"]
mod clones;
#[path = "guest/layers.rs"]
mod layers;
#[path = "guest/model.rs"]
mod model;
#[path = "guest/mounted.rs"]
mod mounted;
#[path = "guest/python.rs"]
mod python;
#[path = "guest/running_clones.rs"]
mod running_clones;
#[path = "guest/script.rs"]
mod script;
#[path = "guest/whole_tree.rs"]
mod whole_tree;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vhost_famfs::host::residency::{self, MappedFile};
use vhost_famfs::vm::{Command, Output};
use vm_tests::{Artifacts, BOOT, Cluster, Member, Node, Pool, Session, Transport, View, health};

const POOL: u64 = 512 << 20;
const MEMORY: u64 = 768 << 20;
const SHORT: Duration = Duration::from_secs(300);

/// The large file that the host copies into the pool: 32 units of 2 MiB.
const LARGE: u64 = 64 << 20;

fn main() -> Result<ExitCode> {
    let artifacts = Artifacts::from_env()?;
    let mut session = Session::from_args()?;
    session.scenario("three VMs, one pool", |s| three_vms(s, &artifacts));
    session.scenario("the tools on a mount", |s| mounted::scenario(s, &artifacts));
    session.scenario("a model", |s| model::scenario(s, &artifacts));
    session.scenario("a whole tree", |s| whole_tree::scenario(s, &artifacts));
    session.scenario("clones", |s| clones::scenario(s, &artifacts));
    session.scenario("running clones", |s| running_clones::scenario(s, &artifacts));
    session.scenario("raw view and a read-only window", |s| raw_view(s, &artifacts));
    Ok(session.finish())
}

/// A pool filled by the host, a master and two clients.
fn three_vms(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let pool = Pool::create(artifacts, POOL, POOL, View::Devdax)?;
    pool.mkfs(&[])?;
    let source = tempfile::tempdir().context("no temporary directory")?;
    let small_files = make_source(source.path())?;
    let from = source.path().join(".");
    session.check("cp names what famfs cannot hold, and copies nothing", || {
        let error = pool.famfs(["cp".as_ref(), "-r".as_ref(), from.as_os_str(), "/".as_ref()]);
        let text = format!("{:#}", error.err().context("the copy succeeded")?);
        ensure!(text.contains("named pipe") && text.contains("--skip-unsupported"), "{text}");
        let listing: Value = serde_json::from_slice(&pool.famfs(["ls", "--json"])?)?;
        ensure!(!listing.to_string().contains("plain"), "{listing}");
        Ok(())
    });
    let options = ["cp", "-r", "--skip-unsupported"].map(Into::into);
    pool.famfs(options.into_iter().chain([from.into_os_string(), "/".into()]))?;
    pool.famfs(["creat", "--size", &LARGE.to_string(), "--seed", "7", "/large"])?;
    let sums = pool.famfs(["sum"])?;

    let members =
        vec![Member::new("master", true), Member::new("one", false), Member::new("two", false)];
    let cluster = Cluster::start(artifacts, &pool, MEMORY, members)?;
    cluster.wait_ready(BOOT)?;
    // The following checks count page faults with tracepoints, which rewrite code. They must not
    // run while a watch is starting.
    cluster.in_all(Node::wait_watch)?;
    let (master, one) = (cluster.node("master")?, cluster.node("one")?);

    session.check("every VM reads every file right", || {
        let reports = cluster.in_all(|node| {
            let check = ["famfs", "sum", "--check", "-", "--json", "/mnt/famfs"];
            json(node, Command::new(check).stdin(sums.clone()))
        })?;
        for report in reports {
            let files = report["files"].as_array().map_or(0, Vec::len) as u64;
            ensure!(files == small_files + 1 && report["failed"] == 0, "{report}");
        }
        Ok(())
    });
    session.check("64 MiB are mapped by 32 faults of 2 MiB and none of 4 KiB", || {
        for report in cluster.in_all(|node| {
            json(node, Command::new(["famfs", "sum", "--faults", "--json", "/mnt/famfs/large"]))
        })? {
            let faults = &report["faults"];
            let small = faults["pte"].as_object().map_or(1, serde_json::Map::len);
            ensure!(faults["pmd"]["NOPAGE"] == LARGE >> 21 && small == 0, "{report}");
        }
        Ok(())
    });
    session.check("doctor finds nothing wrong with any VM", || {
        cluster.nodes().iter().try_for_each(doctor)
    });
    session.check("only the master may create", || {
        let create = ["famfs", "creat", "--size", "4m", "--seed", "3", "/mnt/famfs/by-client"];
        let output = one.vm.exec(&Command::new(create), SHORT)?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && text.contains("master"), "{output:?}");
        Ok(())
    });
    session.check("a client has the modes of the log, and whom they allow can write there", || {
        script::run(master, "umask 0; famfs creat -s 4m -m 0666 /mnt/famfs/scratch")?;
        one.wait_for("[[ -e /mnt/famfs/scratch ]]")?;
        let write = "[[ $(stat -c %a /mnt/famfs/scratch) = 666 ]] && printf seen |
             setpriv --reuid 1000 --regid 1000 --clear-groups dd of=/mnt/famfs/scratch conv=notrunc";
        one.run(&Command::shell(write), SHORT)?;
        let seen = run(master, &["head", "-c", "4", "/mnt/famfs/scratch"])?;
        ensure!(seen.stdout == b"seen", "{seen:?}");
        Ok(())
    });
    session.check(
        "without a watch a file of the master appears in the clients after a replay",
        || {
            let name = "/mnt/famfs/from the master";
            let stop = Command::new(["systemctl", "stop", "famfs-watch"]);
            cluster.in_all(|node| node.run(&stop, SHORT))?;
            run(master, &["famfs", "creat", "--size", "4m", "--seed", "9", name])?;
            for client in cluster.nodes().iter().filter(|node| !node.member.master) {
                let before = client.vm.exec(&Command::new(["test", "-e", name]), SHORT)?;
                ensure!(!before.status.success(), "it was there before the replay");
                run(client, &["famfs", "logplay", "/mnt/famfs"])?;
                run(client, &["famfs", "verify", "--seed", "9", "--file", name])?;
            }
            Ok(())
        },
    );
    session.check("a second mount of the device is refused", || {
        let mount = Command::shell(
            "mkdir -p /tmp/second && mount -i -t famfs /dev/dax0.0 /tmp/second 2>&1",
        );
        let output = one.vm.exec(&mount, SHORT)?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(!output.status.success() && text.contains("mounted already"), "{text}");
        let attach = "famfs attach --mount-point /tmp/second --timeout 1 2>&1";
        let output = one.vm.exec(&Command::shell(attach), SHORT)?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(!output.status.success(), "{text}");
        ensure!(text.contains("mounted already, on /mnt/famfs: `famfs logplay"), "{text}");
        Ok(())
    });
    session.check("unmount, unload, load, attach again", || {
        run(one, &["famfs", "umount", "/mnt/famfs"])?;
        run(one, &["rmmod", "famfs"])?;
        run(one, &["famfs", "attach"])?;
        run(one, &["famfs", "verify", "--seed", "7", "--file", "/mnt/famfs/large"]).map(|_| ())
    });
    session.check("the kernel, the tools and the log agree on where a file is", || {
        let map = json(master, Command::new(["famfs", "getmap", "--json", "/mnt/famfs/large"]))?;
        let extents = map.to_string();
        let listing: Value = serde_json::from_slice(&pool.famfs(["ls", "--json", "/large"])?)?;
        let offset = find_number(&listing, "offset").context("no offset in ls --json")?;
        ensure!(extents.contains(&offset.to_string()), "kernel: {map}, log: {listing}");
        Ok(())
    });
    session.check("the reading commands work on a mount", || {
        let plain = run(one, &["famfs", "cat", "/mnt/famfs/plain"])?;
        ensure!(plain.stdout == [0], "cat: {plain:?}");
        run(one, &["famfs", "chkread", "/mnt/famfs/large"])?;
        run(one, &["famfs", "tree", "/mnt/famfs"])?;
        run(one, &["famfs", "stat", "/mnt/famfs/large"])?;
        run(one, &["famfs", "du", "-s", "/mnt/famfs"])?;
        let space = json(one, Command::new(["famfs", "df", "--json", "/mnt/famfs"]))?;
        ensure!(space["used"].as_u64().is_some_and(|used| used >= LARGE), "df: {space}");
        let dump = json(one, Command::new(["famfs", "dump", "--json", "/mnt/famfs"]))?;
        ensure!(dump["log_length_from"] == "superblock", "dump: {}", dump["log_length_from"]);
        Ok(())
    });
    session.check("the host holds the pool once", || {
        let file = MappedFile::of(pool.path())?;
        let mut share = 0;
        for node in cluster.nodes() {
            let held = residency::of_process(node.vm.pid(), &file)?;
            ensure!(held.pool.rss >= LARGE, "{}: {held:?}", node.member.name);
            share += held.pool.pss;
        }
        let allocated = pool.allocated()?;
        ensure!(share <= allocated, "shares of {share} bytes, the pool has {allocated}");
        Ok(())
    });
    session.check("all shut down in order", || cluster.end());
    session.check("the host finds the pool clean and sees the master's file", || {
        pool.famfs(["fsck"])?;
        pool.famfs(["verify", "--seed", "9", "--file", "/from the master"])?;
        Ok(())
    });
    Ok(())
}

/// Fails if `famfs doctor` reports a problem in a VM.
fn doctor(node: &Node) -> Result<()> {
    let output = node.run(&Command::new(["bash", "-c", health::DOCTOR]), SHORT)?;
    health::check(&node.member.name, &output.stdout)
}

/// A pool without a devdax info block, with QEMU's own virtio-pmem.
fn raw_view(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let pool = Pool::create(artifacts, POOL, POOL, View::Raw)?;
    pool.mkfs(&[])?;
    pool.famfs(["creat", "--size", "8m", "--seed", "5", "/file"])?;
    let pmem = |readonly| Some(Transport::Pmem { readonly });
    let members = vec![
        Member::new("writer", true).with_transport(pmem(false)),
        Member::new("reader", false)
            .with_transport(pmem(true))
            .with_credential("famfs.access", "read-only"),
    ];
    let cluster = Cluster::start(artifacts, &pool, MEMORY, members)?;
    cluster.wait_ready(BOOT)?;
    let (writer, reader) = (cluster.node("writer")?, cluster.node("reader")?);
    session.check("both read the file", || {
        let verify = ["famfs", "verify", "--seed", "5", "--file", "/mnt/famfs/file"];
        cluster.in_all(|node| run(node, &verify)).map(|_| ())
    });
    session.check("doctor finds nothing wrong with either VM", || {
        cluster.nodes().iter().try_for_each(doctor)
    });
    session.check("the device is /dev/pmem0", || {
        let source = run(reader, &["findmnt", "--noheadings", "--output", "SOURCE", "/mnt/famfs"])?;
        ensure!(source.stdout.trim_ascii() == b"/dev/pmem0", "{source:?}");
        Ok(())
    });
    reads_only(session, writer, reader);
    session.check("root in the read-only VM cannot change the pool", || {
        let before = pool.famfs(["sum"])?;
        let write = "famfs umount /mnt/famfs
            dd if=/dev/zero of=/dev/pmem0 bs=1M seek=12 count=4 oflag=direct conv=notrunc || true
            sync";
        reader.vm.exec(&Command::shell(write), SHORT)?;
        ensure!(pool.famfs(["sum"])? == before, "the pool's files changed");
        pool.famfs(["fsck"])?;
        Ok(())
    });
    session.check("both shut down in order", || cluster.end());
    Ok(())
}

/// A VM whose stores are dropped: its mount must report that, and still show what others create.
fn reads_only(session: &mut Session, writer: &Node, reader: &Node) {
    session.check("a read-only VM: writing is an error, before anything is lost", || {
        for (script, word) in [
            ("printf X | dd of=/mnt/famfs/file conv=notrunc", "Read-only file system"),
            ("dd if=/dev/null of=/mnt/famfs/new", "Read-only file system"),
            ("famfs creat -s 1m /mnt/famfs/new", "mounted read-only"),
            ("famfs rm /mnt/famfs/file", "mounted read-only"),
            ("famfs takeover --yes /mnt/famfs", "mounted read-only"),
        ] {
            let said = script::refused(reader, script, 1)?;
            ensure!(said.contains(word), "{script}: {said}");
        }
        Ok(())
    });
    session.check("a read-only VM: files of the master appear by themselves, and go", || {
        reader.wait_watch()?;
        script::run(writer, "umask 0; famfs creat -s 4m -S 6 -m 0666 /mnt/famfs/late")?;
        reader.wait_for("[[ -e /mnt/famfs/late ]]")?;
        script::run(
            reader,
            "famfs verify -S 6 -f /mnt/famfs/late
             [[ $(stat -c %a /mnt/famfs/late) = 666 ]]
             findmnt -n -o VFS-OPTIONS /mnt/famfs | grep -q '^ro,'
             [[ $(grep -c famfs /proc/mounts) = 1 ]]",
        )?;
        script::run(writer, "famfs rm /mnt/famfs/late")?;
        reader.wait_for("[[ ! -e /mnt/famfs/late ]]").map(drop)
    });
    session.check(
        "a read-only VM: the watch ends with the mount, whose device is free then",
        || {
            script::run(
                reader,
                "famfs umount /mnt/famfs
             famfs attach
             findmnt -n -o VFS-OPTIONS /mnt/famfs | grep -q '^ro,'
             famfs verify -S 5 -f /mnt/famfs/file",
            )
            .map(drop)
        },
    );
}

/// A directory with names and sizes that are easy to get wrong, and a pipe. Returns the number of
/// its files.
fn make_source(dir: &Path) -> Result<u64> {
    let deep = dir.join("a directory/日本");
    fs::create_dir_all(&deep).context("cannot make the source")?;
    let mut count = 0;
    let mut write = |path: &Path, size: usize| {
        let content: Vec<u8> = (0..=250).cycle().take(size).collect();
        count += 1;
        fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
    };
    write(&dir.join("plain"), 1)?;
    write(&dir.join("one page"), 4096)?;
    write(&deep.join("été"), (2 << 20) + 1)?;
    write(&dir.join("n".repeat(79)), 100)?;
    for number in 0..100 {
        write(&dir.join(format!("a directory/small {number}")), 1000 + number)?;
    }
    write(&dir.join("nothing in it"), 0)?;
    write(&dir.join("n".repeat(80)), 8)?;
    let (pipe, mode) = (dir.join("pipe"), rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, pipe, rustix::fs::FileType::Fifo, mode, 0)
        .context("cannot make the source")?;
    Ok(count)
}

/// Runs a command that must succeed.
fn run(node: &Node, argv: &[&str]) -> Result<Output> {
    node.run(&Command::new(argv.iter().copied()), SHORT)
}

/// Runs a command that prints JSON.
fn json(node: &Node, command: Command) -> Result<Value> {
    let output = node.run(&command, SHORT)?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("'{command}' printed no JSON"))
}

/// The first number with this key anywhere in a JSON value.
fn find_number(value: &Value, key: &str) -> Option<u64> {
    match value {
        Value::Object(map) => map
            .get(key)
            .and_then(Value::as_u64)
            .or_else(|| map.values().find_map(|value| find_number(value, key))),
        Value::Array(list) => list.iter().find_map(|value| find_number(value, key)),
        _ => None,
    }
}
