// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a guest reports about a configuration that cannot work: credentials from someone other than
//! the launcher, and a missing pool.

use std::time::Duration;

use anyhow::{Result, ensure};
use vhost_famfs::vm::{Command, Output};
use vm_tests::{Node, Session};

const LIMIT: Duration = Duration::from_secs(180);

/// Replaces the machine's credentials.
const GIVE: &str = "mount -t tmpfs -o mode=0700 none /run/appliance/credentials &&
    cd /run/appliance/credentials && printf boss > famfs.role && printf 1 > famfs.rol &&
    printf 'ssh-ed25519 AAAA' > ssh.authorized_keys.root";
const TAKE_BACK: &str = "umount /run/appliance/credentials";

/// Runs with a VM that has no pool.
pub fn told(session: &mut Session, node: &Node) {
    session.check("wrong credentials: nothing is attached, and it says which", || {
        node.run(&Command::shell(GIVE), LIMIT)?;
        let tried = run(node, "appliance-agent attach")?;
        ensure!(!tried.status.success(), "{tried:?}");
        let said = String::from_utf8_lossy(&tried.stderr).into_owned();
        ensure!(said.contains("famfs.role=\"boss\": expected master or client"), "{said}");
        ensure!(said.contains("unknown credential \"famfs.rol\""), "{said}");
        Ok(())
    });
    session.check("wrong and useless credentials: the self-check tells the host", || {
        let problems = node.vm.self_check(LIMIT)?;
        let expected = [
            "unknown credential \"famfs.rol\"",
            "expected master or client",
            "ssh.authorized_keys.root: has no effect",
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
