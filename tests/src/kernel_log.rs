// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a guest's kernel log must not contain.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What the kernel prints when it detects a fault.
const FAULTS: &[&str] = &[
    "WARNING:",
    "BUG:",
    // A slab report: "BUG kmalloc-64 (...)".
    "] BUG ",
    "Oops",
    "KASAN:",
    "KCSAN:",
    "UBSAN:",
    "invalid opcode",
    "detected buffer overflow",
    "suspicious RCU usage",
    "DEBUG_LOCKS_WARN_ON",
    "possible irq lock inversion",
    "list_add corruption",
    "list_del corruption",
    "lockdep is turned off",
    "possible circular locking",
    "possible recursive locking",
    "inconsistent lock state",
    "Busy inodes",
    "general protection fault",
    "Kernel panic",
    "blocked for more than",
];

/// The lines of a console log file that report a fault of the kernel.
pub fn faults_in(log: &Path) -> Result<Vec<String>> {
    let text = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    Ok(faults(&String::from_utf8_lossy(&text)))
}

/// The lines of a console log that report a fault of the kernel.
fn faults(log: &str) -> Vec<String> {
    log.lines()
        .filter(|line| FAULTS.iter().any(|fault| line.contains(fault)))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::faults;

    #[test]
    fn faults_are_found_and_nothing_else() {
        let log = "[    1.0] dax0.0: bound\n\
                   [    2.0] WARNING: CPU: 0 PID: 1 at fs/dax.c:1\n\
                   [    3.0] VFS: Busy inodes after unmount of dax0.0\n\
                   [    4.0] virtio_pmem: no warning here\n\
                   [    5.0] BUG kmalloc-64 (Tainted: G O): Poison overwritten\n\
                   [    6.0] FAULT_INJECTION: DEBUG output\n";
        assert_eq!(faults(log).len(), 3);
        assert!(faults("[    1.0] all quiet\n").is_empty());
    }
}
