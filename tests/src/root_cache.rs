// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How much of its root a guest keeps in its own page cache.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use vhost_famfs::vm::Command;

use crate::Node;

/// Reads every library and program, which is more than programs read at start.
const READ_ALL: &str = "find /usr/lib /usr/bin -type f -exec cat {} + | wc -c";

/// The minimum size of all programs and libraries; a smaller sum means that some are missing.
const LEAST: u64 = 30_000_000;

const LIMIT: Duration = Duration::from_secs(300);

/// Reads all of a guest's programs and libraries.
pub fn read_root(node: &Node) -> Result<()> {
    let read = says(node, READ_ALL)?;
    ensure!(read.parse::<u64>()? > LEAST, "VM {}: read only {read} bytes", node.vm.name());
    Ok(())
}

/// Bytes of files in the guest's page cache. Linux also counts the contents of tmpfs there, which
/// are not files of the root.
pub fn cached(node: &Node) -> Result<u64> {
    let text = says(node, "grep -E '^(Cached|Shmem):' /proc/meminfo")?;
    let kib: Vec<u64> =
        text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [cached, shmem] = kib[..] else {
        anyhow::bail!("VM {}: unexpected /proc/meminfo: {text}", node.vm.name());
    };
    let files =
        cached.checked_sub(shmem).with_context(|| format!("less cached than shmem: {text}"))?;
    Ok(files * 1024)
}

fn says(node: &Node, script: &str) -> Result<String> {
    let output = node.run(&Command::shell(script), LIMIT)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
