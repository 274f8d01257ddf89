// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Trees in a guest, as manifests: compared with their source on the host.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use trees::Tree;
use vhost_famfs::vm::Command;

use crate::{Artifacts, Node};

/// Where the program lies in a guest.
const PROGRAM: &str = "/run/trees";

/// How long the guest may take for a tree: under emulation, of many thousand names.
const LIMIT: Duration = Duration::from_secs(600);

/// Sends the program `trees` to a guest; returns its path there.
pub fn send_trees(artifacts: &Artifacts, node: &Node) -> Result<&'static str> {
    let program = fs::read(&artifacts.trees)
        .with_context(|| format!("cannot read {}", artifacts.trees.display()))?;
    let script = format!("cat > {PROGRAM} && chmod 755 {PROGRAM}");
    node.run(&Command::shell(&script).stdin(program), LIMIT)?;
    Ok(PROGRAM)
}

/// Reads a directory of a guest that has the program `trees` ([`send_trees`]), without some of its
/// paths.
pub fn read_tree(node: &Node, dir: &str, without: &[&str]) -> Result<Tree> {
    let mut argv = vec![PROGRAM, "manifest", dir];
    for path in without {
        argv.extend(["--without", path]);
    }
    let output = node.run(&Command::new(argv), LIMIT)?;
    String::from_utf8(output.stdout).context("a manifest that is not UTF-8")?.parse()
}
