// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the program that reads the log of a pool may do.

use std::time::Duration;

use anyhow::{Result, ensure};
use vhost_famfs::vm::Command;
use vm_tests::{Node, Session};

const LIMIT: Duration = Duration::from_secs(180);

/// Starts an attach, which finds no pool and waits, then prints its privileges: its capabilities,
/// whether it can gain more, and the mode of its system call filter (2: a list).
const LOOK: &str = r#"
appliance-agent attach 2>/dev/null &
pid=$!
until grep --quiet 'Seccomp_filters:.2' /proc/$pid/status; do sleep 0.1; done
grep --extended-regexp '^(Cap...|NoNewPrivs|Seccomp):' /proc/$pid/status | sed 's/\t/ /'
kill $pid
"#;

/// The capabilities are CHOWN, DAC_OVERRIDE, FOWNER, FSETID and SYS_ADMIN (linux/capability.h: 0,
/// 1, 3, 4, 21).
const EXPECTED: [&str; 7] = [
    "CapInh: 0000000000000000",
    "CapPrm: 000000000020001b",
    "CapEff: 000000000020001b",
    "CapBnd: 000000000020001b",
    "CapAmb: 0000000000000000",
    "NoNewPrivs: 1",
    "Seccomp: 2",
];

/// The capabilities of the host's commands: all 41 (linux/capability.h) except SYS_PACCT,
/// AUDIT_CONTROL, MAC_OVERRIDE, MAC_ADMIN, WAKE_ALARM, BLOCK_SUSPEND, AUDIT_READ and
/// CHECKPOINT_RESTORE (20, 30, 32, 33, 35, 36, 37, 40).
const OF_COMMANDS: [&str; 3] =
    ["CapPrm: 000000c4bfefffff", "CapEff: 000000c4bfefffff", "CapBnd: 000000c4bfefffff"];

/// Runs with a VM that has no pool.
pub fn locked_in(session: &mut Session, node: &Node) {
    session.check("what reads a pool's log is locked in", || -> Result<()> {
        let output = node.run(&Command::shell(LOOK), LIMIT)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(said.lines().eq(EXPECTED), "{said}");
        Ok(())
    });
    session.check("the agent and its commands lack what they do not need", || -> Result<()> {
        for process in ["self", "$PPID"] {
            let look = format!(
                "grep --extended-regexp '^Cap(Prm|Eff|Bnd):' /proc/{process}/status | sed 's/\t/ /'"
            );
            let output = node.run(&Command::shell(&look), LIMIT)?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            ensure!(said.lines().eq(OF_COMMANDS), "{process}: {said}");
        }
        Ok(())
    });
}
