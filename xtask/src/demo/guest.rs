// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The part of the demo that runs inside the VMs.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use vhost_famfs::vm::{Command, Output};
use vm_tests::{Cluster, Node};

use super::meminfo;
use super::report::Faults;

/// Where the appliance mounts the pool.
const MOUNT_POINT: &str = "/mnt/famfs";

/// How long a VM may take to hash all files: under emulation, gigabytes take minutes.
const CHECK: Duration = Duration::from_secs(1800);

/// How long anything else may take.
const SHORT: Duration = Duration::from_secs(60);

/// The file that the master creates, and the seed of its contents.
const NEW_FILE: &str = "/mnt/famfs/created-by-the-demo";
const SEED: &str = "42";

/// The result of checking all files in one VM.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Files with a correct SHA-256.
    pub verified: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Page faults on their mappings.
    pub faults: Faults,
    /// The guest's page cache after all files were read, in bytes.
    pub page_cache: u64,
}

/// The part of the output of `famfs sum --check --faults --json` that the demo uses.
#[derive(Deserialize)]
struct Sum {
    files: Vec<serde::de::IgnoredAny>,
    failed: u64,
    bytes: u64,
    faults: FaultResults,
}

/// Faults by size; each has the kernel's name for the result.
#[derive(Deserialize)]
struct FaultResults {
    pmd: HashMap<String, u64>,
    pte: HashMap<String, u64>,
}

/// The result of a fault that mapped the page.
const MAPPED: &str = "NOPAGE";

/// Checks every file of the list in all VMs at the same time.
pub fn check_files(cluster: &Cluster, manifest: &[u8]) -> Result<Vec<Checked>> {
    cluster.in_all(|node| {
        let command =
            Command::new(["famfs", "sum", "--check", "-", "--faults", "--json", MOUNT_POINT])
                .stdin(manifest);
        // Wrong files are counted, and reported with everything else.
        let output = node.vm.exec(&command, CHECK)?;
        let sum: Sum = parse(node, &command, &output)?;
        let mapped = |results: &HashMap<String, u64>| results.get(MAPPED).copied().unwrap_or(0);
        Ok(Checked {
            verified: sum.files.len() as u64 - sum.failed,
            bytes: sum.bytes,
            faults: Faults { pmd: mapped(&sum.faults.pmd), pte: mapped(&sum.faults.pte) },
            page_cache: page_cache(node)?,
        })
    })
}

/// Creates a file in the master, replays the log in the other VMs, and checks the file in every VM.
/// Returns for each VM whether the contents were correct.
pub fn share_new_file(cluster: &Cluster) -> Result<Vec<bool>> {
    for node in cluster.nodes().iter().filter(|node| node.member.master) {
        let create = ["famfs", "creat", "--size", "8m", "--seed", SEED, NEW_FILE];
        node.run(&Command::new(create), SHORT)?;
    }
    cluster.in_all(|node| {
        node.run(&Command::new(["famfs", "logplay", MOUNT_POINT]), SHORT)?;
        let verify = ["famfs", "verify", "--seed", SEED, "--file", NEW_FILE];
        let output = node.vm.exec(&Command::new(verify), SHORT)?;
        Ok(output.status.success())
    })
}

/// The guest's page cache.
fn page_cache(node: &Node) -> Result<u64> {
    let output = node.run(&Command::new(["cat", "/proc/meminfo"]), SHORT)?;
    meminfo(&String::from_utf8_lossy(&output.stdout), "Cached")
        .context("no line 'Cached' in the guest's /proc/meminfo")
}

/// Reads the JSON that a command printed.
fn parse<T: for<'a> Deserialize<'a>>(node: &Node, command: &Command, output: &Output) -> Result<T> {
    serde_json::from_slice(&output.stdout).with_context(|| {
        format!(
            "VM {}: cannot parse the output of '{command}'; its standard error: {}",
            node.vm.name(),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}
