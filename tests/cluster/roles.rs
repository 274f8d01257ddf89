// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A cluster whose host is the only writer, until a VM takes the role over; `ps` tells who writes
//! and how far each VM is. The pool grows meanwhile.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vm_tests::{Artifacts, Session};

use super::network;
use super::program::{LIMIT, Program, until};

const NAMES: [&str; 2] = ["one", "two"];

pub fn scenario(session: &mut Session, artifacts: &Artifacts) -> Result<()> {
    let program = Program::new(artifacts)?;
    let pool = program.pools.path().join("roles");
    let port = network::free_port()?;
    let text = format!(
        "master = \"host\"\n[pool]\npath = {pool:?}\n\
         [[vm]]\nname = \"one\"\nmemory = \"512M\"\nhealth = \"test -d /mnt/famfs/.meta\"\n\
         [[vm]]\nname = \"two\"\nmemory = \"512M\"\nnetwork = \"user\"\n\
         ports = [\"{port}:{guest_port}\"]\n",
        guest_port = network::PORT
    );
    let path = pool.to_string_lossy();
    program.ok(&["pool", "create", &path, "--size", "64M", "--max", "256M", "--mkfs"])?;
    let file = program.pools.path().join("roles.toml");
    fs::write(&file, text)?;
    let up = program.json(&["up", &file.to_string_lossy(), "--json"])?;
    let famfs = |words: &[&str]| {
        let output = program.famfs(&pool, words)?;
        ensure!(output.status.success(), "{words:?}: {output:?}");
        Ok(output)
    };
    let publish = || famfs(&["publish", "--wait-all", "--members", "2", "--timeout", "100"]);
    session.check("with the host as master, no VM is, and the host writes", || {
        for vm in up["vms"].as_array().context("no VMs")? {
            ensure!(vm["mounted"] == true && vm["master"] == false, "{up}");
        }
        let refused = program.shell("one", "famfs mkdir /mnt/famfs/no 2>&1 || true")?;
        ensure!(refused.contains("is a client") && refused.contains("famfs takeover"), "{refused}");
        famfs(&["mkdir", "/by-the-host"])?;
        publish()?;
        program.shell("two", "[[ -d /mnt/famfs/by-the-host ]]").map(drop)
    });
    session.check("a VM has a network if it is to have one", || {
        network::none(&program, "one")?;
        network::reaches_the_host(&program, "two")?;
        network::is_reached(&program, "two", port)
    });
    session.check("ps says that the host writes, and that both VMs have everything", || {
        let (report, _) = program.ps()?;
        let famfs = &report["famfs"];
        ensure!(report["vms"][0]["health"]["healthy"] == true, "{report}");
        ensure!(famfs["master_vm"] == Value::Null && famfs["published"] == 1, "{report}");
        for vm in report["vms"].as_array().context("no VMs")? {
            let follows = (&vm["role"], &vm["applied"], &vm["behind"]);
            ensure!(follows == (&"client".into(), &1.into(), &0.into()), "{report}");
            ensure!(vm["uuid"].is_string() && vm["uuid"] != famfs["master"], "{report}");
        }
        let table = program.ok(&["ps"])?;
        println!("# {}", table.trim().replace('\n', "\n# "));
        ensure!(table.contains("master: none of these VMs; the host writes"), "{table}");
        Ok(())
    });
    session.check("ps says how far a VM is behind whose watch stands still", || {
        let pid = "$(systemctl show -P MainPID famfs-watch)";
        program.shell("two", &format!("kill -STOP {pid}"))?;
        famfs(&["mkdir", "/late"])?;
        famfs(&["mkdir", "/later"])?;
        let seen = until("the other VM has it", LIMIT, || {
            let (report, _) = program.ps()?;
            Ok(report["vms"][0]["behind"] == 0 && report["famfs"]["published"] == 3)
        });
        let (report, _) = program.ps()?;
        program.shell("two", &format!("kill -CONT {pid}"))?;
        seen?;
        ensure!(report["vms"][1]["behind"] == 2, "{report}");
        publish().map(drop)
    });
    session.check("the pool grows while both VMs have it, and they use the room", || {
        let full = program.famfs(&pool, &["creat", "-s", "100m", "-S", "5", "/large"])?;
        ensure!(!full.status.success(), "{full:?}");
        program.ok(&["pool", "grow", &path, "--size", "192M"])?;
        famfs(&["creat", "-s", "100m", "-S", "5", "/large"])?;
        publish()?;
        for name in NAMES {
            program.shell(name, "famfs verify -S 5 -f /mnt/famfs/large")?;
            let left_out = program.shell(name, "journalctl -u famfs-watch -o cat")?;
            ensure!(!left_out.contains("left out"), "{name}: {left_out}");
        }
        famfs(&["fsck"]).map(drop)
    });
    session.check("takeover in a VM moves the role there, and ps says so", || {
        program.shell("two", "famfs takeover --yes && famfs mkdir /mnt/famfs/by-two")?;
        let (report, _) = program.ps()?;
        ensure!(report["famfs"]["master_vm"] == "two", "{report}");
        let roles: Vec<_> = NAMES.iter().zip(0..).map(|(_, n)| &report["vms"][n]["role"]).collect();
        ensure!(roles == [&Value::from("client"), &Value::from("master")], "{report}");
        ensure!(program.ok(&["ps"])?.contains("master: two"), "{report}");
        program.shell("two", "famfs creat -s 16m -S 6 /mnt/famfs/in-the-room")?;
        // The host still writes, in turn with it.
        famfs(&["mkdir", "/and-the-host"])?;
        publish()?;
        program.shell("one", "[[ -d /mnt/famfs/by-two && -d /mnt/famfs/and-the-host ]]").map(drop)
    });
    session.check("a master that is stopped and started is the master of the same pool", || {
        let told = program.ok(&["stop", "two"])?;
        ensure!(told.contains("two: powered off") && told.contains("two is the master"), "{told}");
        let (report, code) = program.ps()?;
        ensure!(code == Some(0) && report["vms"][1]["status"] == "stopped", "{report}");
        famfs(&["mkdir", "/while-two-is-away"])?;
        program.ok(&["start", "two"])?;
        program.shell("two", "cd /mnt/famfs; [[ -d while-two-is-away ]]; famfs mkdir back")?;
        publish()?;
        program.shell("one", "[[ -d /mnt/famfs/back ]]")?;
        let (report, _) = program.ps()?;
        ensure!(report["famfs"]["master_vm"] == "two", "{report}");
        ensure!(report["vms"][1]["behind"] == 0, "{report}");
        Ok(())
    });
    program.ok(&["down", "roles"])?;
    program.ok(&["pool", "rm", "--force", &path]).map(drop)
}
