// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a guest says of a configuration that cannot work: credentials that others than the launcher gave, and a pool
//! that is not there.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vhost_famfs::launch::{Command, Output};
use vm_tests::{Node, Session};

const LIMIT: Duration = Duration::from_secs(60);

/// Puts other credentials in the place of the machine's.
const GIVE: &str = "mount -t tmpfs -o mode=0700 none /run/credentials/@system &&
    cd /run/credentials/@system && printf boss > famfs.role && printf 1 > famfs.rol &&
    printf 'ssh-ed25519 AAAA' > ssh.authorized_keys.root";
const TAKE_BACK: &str =
    "cd / && umount /run/credentials/@system && systemctl reset-failed famfs-attach.service";

/// With a VM that has no pool.
pub fn told(session: &mut Session, node: &Node) {
    session.check("wrong credentials: the unit fails, the console says which", || {
        node.run(&Command::shell(GIVE), LIMIT)?;
        let started = run(node, "systemctl start famfs-attach.service")?;
        ensure!(!started.status.success(), "{started:?}");
        let console = fs::read_to_string(node.console_log())?;
        let said = console.lines().find(|line| line.contains("famfs.role=\"boss\""));
        let said = said.with_context(|| format!("not on the console:\n{console}"))?;
        ensure!(said.contains("expected master or client"), "{said}");
        ensure!(said.contains("unknown credential \"famfs.rol\""), "{said}");
        Ok(())
    });
    session.check("wrong and useless credentials: the self-check tells the host", || {
        let problems = node.vm.self_check(LIMIT)?;
        let expected = [
            "unknown credential \"famfs.rol\"",
            "expected master or client",
            "ssh.authorized_keys.root: of no use",
            "unit failed: famfs-attach.service",
        ];
        ensure!(problems.len() == expected.len(), "{problems:?}");
        for (problem, expected) in problems.iter().zip(expected) {
            ensure!(problem.contains(expected), "{problem}: expected {expected}");
        }
        node.run(&Command::shell(TAKE_BACK), LIMIT)?;
        Ok(())
    });
    session.check("a pool that never appears ends attach in time, with the reason", || {
        let tried = run(node, "famfs attach --timeout 1")?;
        ensure!(!tried.status.success(), "{tried:?}");
        let said = String::from_utf8_lossy(&tried.stderr).into_owned();
        ensure!(said.contains("no famfs found within 1 seconds"), "{said}");
        ensure!(said.contains("there is no dax or pmem device"), "{said}");
        Ok(())
    });
}

fn run(node: &Node, script: &str) -> Result<Output> {
    Ok(node.vm.exec(&Command::shell(script), LIMIT)?)
}
