// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A Python that lies in the pool with all that it needs, down to the loader of its libraries: it
//! runs from the mount, and imports modules with shared libraries from there.

use anyhow::{Context, Result, ensure};
use vhost_famfs::vm::Command;
use vm_tests::{Artifacts, Node, Pool, Session};

use super::script::{LIMIT, run};

/// The directory of the pool with the programs; guests see it in their mount.
const DIR: &str = "/programs";
const MOUNTED: &str = "/mnt/famfs/programs";

const PROGRAM: &str = include_str!("python.py");

/// Copies the programs into the pool.
pub fn copy(pool: &Pool, artifacts: &Artifacts) -> Result<()> {
    let programs = artifacts.guest_programs.as_ref().context("no programs for the guest")?;
    pool.famfs(["mkdir", DIR])?;
    let options = ["cp", "-r", "--atomic"].map(Into::into);
    let paths = [programs.join(".").into_os_string(), DIR.into()];
    pool.famfs(options.into_iter().chain(paths)).map(drop)
}

/// Uses a mount of that pool, on the master.
pub fn checks(session: &mut Session, node: &Node) {
    let python =
        format!("PYTHONHOME={MOUNTED}/python {MOUNTED}/bin/python3 -sS /run/python.py {MOUNTED}");
    session.check("Python runs from the mount, with shared libraries and compiled modules", || {
        let program = Command::shell("cat > /run/python.py").stdin(PROGRAM.as_bytes().to_vec());
        node.run(&program, LIMIT)?;
        let output = run(node, &python)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let counts: Vec<u32> = text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        ensure!(counts.len() == 2 && counts[0] > 50 && counts[1] > 8, "{text}");
        Ok(())
    });
    session.check("a module whose time is another one would be compiled again", || {
        let source = format!("{MOUNTED}/python/lib/python3.*/json/__init__.py");
        run(
            node,
            &format!(
                "time=$(stat -c %.9Y {source})
                 famfs touch -d @1 {source}
                 if {python} 2> /run/said; then exit 1; fi
                 grep -q 'json/__init__.py: its compiled module is stale' /run/said
                 famfs touch -d @$time {source}
                 {python}"
            ),
        )
        .map(drop)
    });
}
