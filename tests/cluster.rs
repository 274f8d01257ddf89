// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Clusters as users start them: up, ps, exec, cp, logs, down, and kills in between.

#[path = "cluster/console.rs"]
mod console;
#[path = "cluster/copies.rs"]
mod copies;
#[path = "../vhost-famfs/tests/support/huge_pages.rs"]
mod huge_pages;
#[path = "cluster/kills.rs"]
mod kills;
#[path = "cluster/kinds.rs"]
mod kinds;
#[path = "../vhost-famfs/tests/support/loop_device.rs"]
mod loop_device;
#[path = "cluster/network.rs"]
mod network;
#[path = "cluster/own_guest.rs"]
mod own_guest;
#[path = "cluster/program.rs"]
mod program;
#[path = "cluster/roles.rs"]
mod roles;
#[path = "cluster/shell.rs"]
mod shell;
#[path = "cluster/space.rs"]
mod space;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use program::{LIMIT, Program, end_of, until};
use vm_tests::{Artifacts, Session, health};

fn main() -> Result<ExitCode> {
    let artifacts = Artifacts::from_env()?;
    let mut session = Session::from_args()?;
    session.scenario("file", |s| from_a_file(s, &artifacts));
    session.scenario("copies", |s| copies::scenario(s, &artifacts));
    session.scenario("kinds", |s| kinds::scenario(s, &artifacts));
    session.scenario("roles", |s| roles::scenario(s, &artifacts));
    session.scenario("space", |s| space::scenario(s, &artifacts));
    session.scenario(Artifacts::OWN_GUEST, |s| own_guest::scenario(s, &artifacts));
    session.scenario("kills", |s| kills::scenario(s, &artifacts));
    Ok(session.finish())
}

/// A writer and a read-only reader, on a pool on disk that contains a directory and a tar archive.
fn from_a_file(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let program = Program::new(artifacts)?;
    let logs = &artifacts.logs;
    fs::create_dir_all(logs).with_context(|| format!("cannot create {}", logs.display()))?;
    let dir = tempfile::tempdir_in(logs).context("no directory for a pool")?;
    let dir = dir.path();
    let pool = dir.join("tank");
    fs::create_dir_all(dir.join("data/sub"))?;
    fs::write(dir.join("data/sub/one"), vec![b'1'; 5 << 20])?;
    fs::write(dir.join("data/two"), "two")?;
    let mut tar = std::process::Command::new("tar");
    tar.current_dir(dir.join("data")).args(["-cf", "../data.tar", "two"]);
    ensure!(tar.status()?.success(), "tar fails");
    let text = "name = \"lab\"\nlog-limit = \"256K\"\n[pool]\npath = \"tank\"\nsize = \"128M\"\n\
                [[import]]\nfrom = \"data\"\nto = \"/a/b\"\n[[import]]\nfrom = \"data.tar\"\n\
                [[vm]]\nname = \"writer\"\nmemory = \"640M\"\nshell = true\nnuma = 0\n\
                [[vm]]\nname = \"reader\"\naccess = \"ro\"\nmemory = \"640M\"\n";
    let file = dir.join("lab.toml").to_string_lossy().into_owned();
    fs::write(&file, text)?;

    let report = program.json(&["up", &file, "--json"])?;
    let state = program.state("lab")?;
    session.check("every VM reports its mount, with the transport that its access needs", || {
        let vms = report["vms"].as_array().context("no VMs")?;
        ensure!(vms.iter().all(|vm| vm["mounted"] == true), "{report}");
        ensure!(vms[0]["transport"] == "shmem" && vms[0]["master"] == true, "{report}");
        ensure!(vms[1]["transport"] == "pmem" && vms[1]["access"] == "ro", "{report}");
        ensure!(report["imported"]["files"] == 3, "{report}");
        Ok(())
    });
    session.check("QEMU has a filter, no new privileges, and of root nothing", || {
        for vm in state["vms"].as_array().context("no VMs")? {
            let status = fs::read_to_string(format!("/proc/{}/status", vm["qemu"]["pid"]))?;
            let field = |name: &str| {
                let line = status.lines().find(|line| line.starts_with(name));
                line.and_then(|line| line.split_ascii_whitespace().nth(1)).unwrap_or_default()
            };
            ensure!(field("Seccomp:") == "2" && field("NoNewPrivs:") == "1", "{status}");
            ensure!(field("Uid:") != "0" && field("CapEff:") == "0000000000000000", "{status}");
            if rustix::process::geteuid().is_root() {
                ensure!(field("CapBnd:") == "0000000000000000", "{status}");
            }
        }
        Ok(())
    });
    session.check("the RAM of a VM is bound to its NUMA node, and only that", || {
        let bound = |vm: &serde_json::Value| -> Result<usize> {
            let maps = fs::read_to_string(format!("/proc/{}/numa_maps", vm["qemu"]["pid"]))?;
            let ram = maps.lines().filter(|line| line.contains("memfd:memory-backend"));
            Ok(ram.filter(|line| line.contains(" bind:0 ")).count())
        };
        let (writer, reader) = (bound(&state["vms"][0])?, bound(&state["vms"][1])?);
        ensure!(writer > 0 && reader == 0, "{writer} and {reader} mappings are bound");
        Ok(())
    });
    session.check("the imports are where the file puts them, in every VM", || {
        for vm in ["writer", "reader"] {
            let script = "cd /mnt/famfs; find . -path ./.meta -prune -o -type f -print | sort; cat two; \
                          tr -d 1 < a/b/sub/one | wc -c";
            let seen = program.shell(vm, script)?;
            ensure!(seen == "./a/b/sub/one\n./a/b/two\n./two\ntwo0\n", "{vm}: {seen:?}");
        }
        Ok(())
    });
    session.check("a store of the writer is seen by the reader, which cannot store", || {
        program.shell("writer", "printf TWO 1<>/mnt/famfs/two; sync /mnt/famfs/two")?;
        let seen = program.shell("reader", "cat /mnt/famfs/two")?;
        ensure!(seen == "TWO", "{seen:?}");
        let said = program.shell("reader", "(printf bad 1<>/mnt/famfs/two) 2>&1 || true")?;
        ensure!(said.contains("Read-only file system"), "{said:?}");
        let held = program.famfs(&pool, &["cat", "two"])?;
        ensure!(held.stdout == b"TWO", "the pool holds {held:?}");
        Ok(())
    });
    session.check("keepers wake the guests, which look rarely", || wake_ups(&program, &pool));
    session.check("doctor finds nothing wrong with either VM", || {
        ["writer", "reader"]
            .iter()
            .try_for_each(|vm| health::check(vm, program.shell(vm, health::DOCTOR)?.as_bytes()))
    });
    session.check("exec has the streams and the exit code of the command", || exec(&program));
    session.check("ps tells states, and the memory of the kernel's account", || {
        // The keeper of the one that cannot write the memory tells how far it is.
        until("both show everything", LIMIT, || {
            let (report, _) = program.ps()?;
            Ok((0..2).all(|vm| report["vms"][vm]["behind"] == 0))
        })?;
        let (report, code) = program.ps()?;
        ensure!(code == Some(0) && report["status"] == "up", "{code:?} {report}");
        ensure!(report["pool"]["kind"] == "file", "no test of storage: {report}");
        let number = |value: &serde_json::Value| value.as_u64().context("no number");
        let (mut ram, mut roots) = (0, 0);
        for vm in report["vms"].as_array().context("no VMs")? {
            ensure!(vm["status"] == "running", "{report}");
            ensure!(number(&vm["pool_mapped_bytes"])? == 128 << 20, "{report}");
            ensure!(number(&vm["pool_touched_bytes"])? > 4 << 20, "{report}");
            ensure!(number(&vm["ram_touched_bytes"])? < number(&vm["ram_bytes"])?, "{report}");
            ram += number(&vm["ram_touched_bytes"])?;
            // VMs run from the image in memory by default: at least programs and libraries.
            ensure!(number(&vm["root_touched_bytes"])? > 4 << 20, "{report}");
            roots += number(&vm["root_touched_bytes"])?;
        }
        let (writer, reader) = (&report["vms"][0], &report["vms"][1]);
        ensure!(writer["role"] == "master" && reader["role"] == "client", "{report}");
        ensure!(report["famfs"]["master_vm"] == "writer", "{report}");
        ensure!(reader["applied"] == report["famfs"]["published"], "{report}");
        let root = number(&report["root_bytes"])?;
        ensure!(
            number(&report["host_bytes"])? == ram + root,
            "storage is counted as memory: {report}"
        );
        ensure!(root > 4 << 20 && root * 3 / 2 < roots, "the image is not counted once: {report}");
        Ok(())
    });
    session.check("logs and console show what the guest wrote", || {
        program.shell("reader", "echo a word to the host > /dev/ttyS0")?;
        let shown = || program.ok(&["logs", "reader", "--of", "console"]);
        until("the word is in the log", LIMIT, || {
            Ok(shown()?.contains("reader console | a word to the host"))
        })?;
        let logs = program.ok(&["logs"])?;
        ensure!(logs.contains("writer backend | ") && logs.contains("window mapped"), "{logs}");
        let shown = tempfile::NamedTempFile::new()?;
        let mut console = program.command(&["console", "reader"]);
        let mut console = console.stdout(shown.reopen()?).spawn()?;
        let seen = until("the word is on the console", LIMIT, || {
            Ok(String::from_utf8_lossy(&fs::read(shown.path())?).contains("a word to the host"))
        });
        console.kill()?;
        console.wait()?;
        seen
    });
    session.check("a guest that fills its console finds the end of its log", || {
        let log = program.directory().join("lab/reader.console");
        let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
        let limit = 256 << 10;
        // Output goes byte by byte through an emulated UART, so write only a little more than a log
        // holds.
        program.shell(
            "reader",
            "head -c 300000 /dev/zero | tr '\\0' x | fold > /dev/ttyS0; printf '\\nthe end\\n' > /dev/ttyS0",
        )?;
        until("the end is in the log", LIMIT, || {
            Ok(String::from_utf8_lossy(&fs::read(&log)?).contains("the end"))
        })?;
        let held = size(&log) + size(&log.with_extension("console.old"));
        ensure!(
            (limit / 2..=limit).contains(&held),
            "{held} bytes of log, expected {limit} at most"
        );
        let lines = program.ok(&["logs", "reader", "--of", "console"])?;
        ensure!(lines.contains("reader console | the end"), "logs does not show the end");
        Ok(())
    });
    session.check("a terminal on the console is raw, and as before when it is left", || {
        console::check(&program, "writer")
    });
    session.check("the pool is locked while a VM maps it, with either transport", || {
        // The back-end's lock ends together with the writer; the reader's VM has no back-end.
        program.shell("writer", "systemctl start poweroff.target; sleep 60").ok();
        until("the writer ends, and its back-end with it", LIMIT, || {
            let writer = &program.ps()?.0["vms"][0];
            Ok(writer["status"] == "ended" && writer["backend_pid"].is_null())
        })?;
        let mkfs = program.famfs(&pool, &["mkfs", "--force"])?;
        ensure!(!mkfs.status.success(), "a pool in use was formatted: {mkfs:?}");
        let seen = program.shell("reader", "cat /mnt/famfs/two")?;
        ensure!(seen == "TWO", "{seen:?}");
        Ok(())
    });
    session.check("a second cluster of the name is refused, and harms nothing", || {
        let other = dir.join("data/lab.toml").to_string_lossy().into_owned();
        fs::write(&other, text)?;
        let output = program.run(&["up", &other])?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1), "{output:?}");
        ensure!(stderr.contains("is running, and is another one"), "{stderr}");
        program.shell("reader", "true").map(drop)
    });
    session.check("a changed file changes the cluster, and the reader does not notice", || {
        let reader = program.ps()?.0["vms"][1]["pid"].clone();
        let changed = text.replace("writer\"\nmemory = \"640M\"", "writer\"\nmemory = \"704M\"")
            + "[[vm]]\nname = \"late\"\nmemory = \"640M\"\n";
        fs::write(&file, &changed)?;
        let report = program.json(&["up", &file, "--overcommit", "--json"])?;
        let actions: Vec<_> = (0..3).map(|vm| report["vms"][vm]["action"].clone()).collect();
        ensure!(actions == ["start", "keep", "start"], "{report}");
        ensure!(report["vms"][2]["mounted"] == true, "{report}");
        // Whoever came late sees what is there, and the master writes again.
        let seen = program.shell("late", "cat /mnt/famfs/two")?;
        ensure!(seen == "TWO", "{seen:?}");
        program.shell("writer", "famfs mkdir /mnt/famfs/again")?;
        for vm in ["reader", "late"] {
            until("the directory is there", LIMIT, || {
                Ok(program.shell(vm, "[[ ! -d /mnt/famfs/again ]] || echo there")? == "there\n")
            })?;
        }
        let ps = program.ps()?.0;
        ensure!(ps["vms"][1]["pid"] == reader && ps["famfs"]["master_vm"] == "writer", "{ps}");
        ensure!(ps["vms"][0]["ram_bytes"] == 704 << 20, "{ps}");
        fs::write(&file, text)?;
        let report = program.json(&["up", &file, "--overcommit", "--json"])?;
        let actions: Vec<_> = (0..3).map(|vm| report["vms"][vm]["action"].clone()).collect();
        ensure!(actions == ["restart", "keep", "stop"], "{report}");
        let ps = program.ps()?.0;
        ensure!(
            ps["vms"][1]["pid"] == reader && ps["vms"].as_array().map(Vec::len) == Some(2),
            "{ps}"
        );
        program.shell("writer", "ls -d /mnt/famfs/again").map(drop)
    });
    session.check("down leaves nothing but the user's pool", || {
        let down = program.json(&["down", "lab", "--timeout", "180", "--json"])?;
        ensure!(down["pool_removed"] == false && down["strays"] == 0, "{down}");
        ensure!(down["vms"][0]["end"] == "orderly", "{down}");
        ensure!(down["vms"][1]["end"] == "orderly", "{down}");
        program.check_nothing_left(&state["instance"])?;
        let fsck = program.famfs(&pool, &["fsck"])?;
        ensure!(fsck.status.success(), "{fsck:?}");
        Ok(())
    });
    Ok(())
}

/// Counts of looks in 5 seconds do not depend on how busy the host is.
fn wake_ups(program: &Program<'_>, pool: &Path) -> Result<()> {
    let sockets = || {
        let pools =
            fs::read_dir(program.directory().join(".wake"))?.collect::<Result<Vec<_>, _>>()?;
        pools.iter().map(|pool| Ok(fs::read_dir(pool.path())?.count())).sum::<Result<usize>>()
    };
    ensure!(sockets()? == 2, "{} sockets of two keepers", sockets()?);
    for vm in ["writer", "reader"] {
        // What was published just before makes it look a hundred times more.
        until("it looks rarely", LIMIT, || {
            let looks = program.shell(
                vm,
                "
                pid=$(systemctl show -P MainPID famfs-watch)
                looks() { grep -w voluntary_ctxt_switches /proc/$pid/status | tr -dc 0-9; }
                before=$(looks); sleep 5; echo $(($(looks) - before))",
            )?;
            let count: u32 = looks.trim().parse().with_context(|| format!("{vm}: {looks:?}"))?;
            println!("# {vm}: {count} looks in 5 seconds");
            Ok(count <= 100)
        })?;
    }
    let made = program.famfs(pool, &["mkdir", "woken"])?;
    ensure!(made.status.success(), "{made:?}");
    for vm in ["writer", "reader"] {
        until("the directory is there", LIMIT, || {
            Ok(program.shell(vm, "[[ ! -d /mnt/famfs/woken ]] || echo there")? == "there\n")
        })?;
    }
    Ok(())
}

fn exec(program: &Program<'_>) -> Result<()> {
    let script = "cat; echo oops >&2; exit 7";
    let mut command =
        program.command(&["exec", "--env", "X=y", "writer", "--", "sh", "-c", script]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // Dropped at once, so that the guest sees the end of the input.
    child.stdin.take().context("no input")?.write_all(b"through\n")?;
    let output = end_of(child, &["exec"])?;
    ensure!(output.status.code() == Some(7), "{output:?}");
    ensure!(output.stdout == b"through\n" && output.stderr == b"oops\n", "{output:?}");
    let killed = program.run(&["exec", "writer", "--", "sh", "-c", "kill -9 $$"])?;
    ensure!(killed.status.code() == Some(137), "{killed:?}");
    let missing = program.run(&["exec", "writer", "--", "no-such-program"])?;
    ensure!(missing.status.code() == Some(127), "{missing:?}");
    ensure!(String::from_utf8_lossy(&missing.stderr).contains("no-such-program"), "{missing:?}");
    let no_program = program.run(&["exec", "writer", "--", "/etc/os-release"])?;
    ensure!(no_program.status.code() == Some(126), "{no_program:?}");
    // A command ends together with the program that runs it.
    let begun = "echo begun; exec sleep 12345";
    let mut sleeper = program.command(&["exec", "-n", "writer", "--", "sh", "-c", begun]);
    let mut sleeper = sleeper.stdout(Stdio::piped()).spawn()?;
    let mut said = [0; 6];
    sleeper.stdout.as_mut().context("no output")?.read_exact(&mut said)?;
    sleeper.kill()?;
    sleeper.wait()?;
    ensure!(said == *b"begun\n", "{said:?}");
    until("the command ends with us", LIMIT, || {
        let running =
            program.shell("writer", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '; :")?;
        ensure!(running.contains("appliance-agent"), "{running:?}");
        Ok(!running.contains("sleep 12345"))
    })
}
