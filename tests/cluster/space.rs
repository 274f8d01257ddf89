// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The memory of files that a VM deletes comes back by itself, never while another VM has them
//! open, even one that cannot write the pool; and one that hangs can be ended.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use vm_tests::{Artifacts, Session};

use super::program::{LIMIT, Program, until};

const SIZE: u64 = 8 << 20;
/// How long a VM stands still, and its memory must not be given back.
const STILL: Duration = Duration::from_secs(60);

pub fn scenario(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let program = Program::new(artifacts)?;
    let pool = program.pools.path().join("space");
    let text = format!(
        "[pool]\npath = {pool:?}\nsize = \"128M\"\n[[vm]]\nname = \"writer\"\nmemory = \"512M\"\n\
         [[vm]]\nname = \"reader\"\naccess = \"ro\"\nmemory = \"512M\"\n"
    );
    let file = program.pools.path().join("space.toml");
    fs::write(&file, text)?;
    program.json(&["up", &file.to_string_lossy(), "--json"])?;
    let deleted = || -> Result<u64> {
        let output = program.famfs(&pool, &["df", "--json"])?;
        let report: Value = serde_json::from_slice(&output.stdout)?;
        report["deleted"].as_u64().with_context(|| report.to_string())
    };
    let make = |name: &str| -> Result<()> {
        program.shell("writer", &format!("famfs creat -s 8m -S 1 /mnt/famfs/{name}"))?;
        until("the reader has it", LIMIT, || {
            let found =
                program.shell("reader", &format!("ls /mnt/famfs | grep -cx {name} || :"))?;
            Ok(found.trim() == "1")
        })
    };
    let remove = |name: &str| program.shell("writer", &format!("famfs rm /mnt/famfs/{name}"));
    let back = || -> Result<Duration> {
        let start = Instant::now();
        until("the memory is free again", LIMIT, || Ok(deleted()? == 0))?;
        Ok(start.elapsed())
    };
    let qemu = |signal| -> Result<()> {
        let (report, _) = program.ps()?;
        let pid = report["vms"][1]["pid"].as_i64().context("no reader")?;
        let pid = Pid::from_raw(i32::try_from(pid)?).context("no process")?;
        Ok(kill_process(pid, signal)?)
    };
    session.check("a VM that cannot write has a place as well", || {
        until("both have a place", LIMIT, || {
            let (report, _) = program.ps()?;
            let vms = report["vms"].as_array().context("no VMs")?;
            Ok(vms.iter().all(|vm| vm["no_place"] == false && vm["behind"] == 0))
        })
    });
    session.check("what only a VM deletes comes back without a command of the host", || {
        make("one")?;
        remove("one")?;
        println!("# back after {:?}", back()?);
        Ok(())
    });
    session.check("a file that the VM that cannot write has open stays, and ps tells so", || {
        make("two")?;
        program.shell(
            "reader",
            "(exec </mnt/famfs/two; echo $BASHPID > /run/holder; exec sleep 100000) &>/dev/null &
             until [[ $(readlink /proc/$(cat /run/holder)/fd/0) == */two ]]; do sleep 0.1; done",
        )?;
        let sum = || program.shell("reader", "cksum < /proc/$(cat /run/holder)/fd/0");
        let before = sum()?;
        remove("two")?;
        until("ps tells", LIMIT, || Ok(program.ps()?.0["vms"][1]["holds"] == "two"))?;
        ensure!(program.ok(&["ps"])?.contains("reader: holds two, which is deleted"));
        thread::sleep(Duration::from_secs(10));
        ensure!(deleted()? == SIZE && sum()? == before, "the file was given back");
        program.shell("reader", "kill $(cat /run/holder)")?;
        println!("# back after {:?}", back()?);
        ensure!(program.ps()?.0["vms"][1]["holds"] == Value::Null);
        Ok(())
    });
    session.check("a VM that stands still for a minute holds what it had, then goes on", || {
        make("three")?;
        qemu(Signal::STOP)?;
        remove("three")?;
        let start = Instant::now();
        while start.elapsed() < STILL {
            let output = program.famfs(&pool, &["reclaim"])?;
            ensure!(output.status.code() == Some(3) && deleted()? == SIZE, "{output:?}");
            thread::sleep(Duration::from_secs(5));
        }
        qemu(Signal::CONT)?;
        println!("# back after {:?}", back()?);
        Ok(())
    });
    session.check("a VM that stands still is ended on demand, and the memory comes back", || {
        make("four")?;
        qemu(Signal::STOP)?;
        remove("four")?;
        let output = program.famfs(&pool, &["reclaim", "--fence", "reader", "--yes", "--json"])?;
        let report: Value =
            serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
        ensure!(output.status.success() && report["fenced"]["name"] == "reader", "{report}");
        ensure!(deleted()? == 0);
        until("ps tells", LIMIT, || Ok(program.ps()?.0["vms"][1]["status"] == "ended"))?;
        let members = program.famfs(&pool, &["members", "--json"])?;
        let members: Value = serde_json::from_slice(&members.stdout)?;
        ensure!(members["members"].as_array().is_some_and(|all| all.len() == 1), "{members}");
        program.shell("writer", "famfs creat -s 8m -S 2 /mnt/famfs/five").map(drop)
    });
    session.check("the pool is good", || {
        let output = program.famfs(&pool, &["fsck"])?;
        ensure!(output.status.success(), "{output:?}");
        program.ok(&["down"]).map(drop)
    });
    Ok(())
}
