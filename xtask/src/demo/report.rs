// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The results of the demo, as text and as JSON.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::Skipped;

/// How far the host's memory figures may be from pool plus guests.
const TOLERANCE: f64 = 0.05;

/// All results of the demo.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The shared directory.
    pub shared: Shared,
    /// A row for each VM.
    pub vms: Vec<VmRow>,
    /// The host's memory.
    pub host: HostMemory,
}

/// The shared directory.
#[derive(Debug, Serialize)]
pub struct Shared {
    /// Its path.
    pub dir: PathBuf,
    /// Files in the pool.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that famfs cannot store.
    pub skipped: Vec<Skipped>,
    /// Size of the pool in bytes.
    pub pool: u64,
}

/// DAX page faults by size.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Faults {
    /// Mappings of 2 MiB made by one fault.
    pub pmd: u64,
    /// Mappings of 4 KiB.
    pub pte: u64,
}

/// One VM.
#[derive(Debug, Serialize)]
pub struct VmRow {
    /// Its name.
    pub name: String,
    /// `master` may create files, `client` only reads.
    pub role: &'static str,
    /// Time from the start of QEMU to the mounted pool, in seconds.
    pub boot_s: f64,
    /// The part of it for finding, binding and mounting the pool, in milliseconds.
    pub attach_ms: u64,
    /// Files with the same SHA-256 as the source.
    pub verified: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Faults that mapped them.
    pub faults: Faults,
    /// Whether the file created by the master has the right contents here.
    pub new_file: bool,
    /// The VM's RAM in bytes.
    pub ram: u64,
    /// RAM pages that the host gave it.
    pub ram_used: u64,
    /// The guest's page cache.
    pub page_cache: u64,
    /// Pool pages that its QEMU has mapped.
    pub pool_mapped: u64,
    /// Its share of them: each page is divided by the number of processes that map it.
    pub pool_share: u64,
}

/// The host's memory according to the kernel's counters, in bytes.
#[derive(Debug, Serialize)]
pub struct HostMemory {
    /// Pages of the pool file.
    pub pool: u64,
    /// How much of it all VMs hold together: the sum of their shares (PSS).
    pub pool_in_vms: u64,
    /// RAM pages of all VMs.
    pub ram: u64,
    /// Measured total: the VMs' RAM and shares of the pool, plus pool pages that no VM maps.
    pub total: u64,
    /// How much the same data would take with a copy in each VM.
    pub with_copies: u64,
    /// How much the kernel's count of all shared memory grew meanwhile. Pool and RAM are shared
    /// memory, but so may be memory that other programs allocated or freed.
    pub shmem_growth: u64,
}

impl HostMemory {
    /// Adds up the rows.
    pub fn account(pool: u64, rows: &[VmRow], shmem_growth: u64) -> Self {
        let ram: u64 = rows.iter().map(|row| row.ram_used).sum();
        let pool_in_vms: u64 = rows.iter().map(|row| row.pool_share).sum();
        let widest = rows.iter().map(|row| row.pool_mapped).max().unwrap_or(0);
        let unmapped = pool.saturating_sub(widest);
        Self {
            pool,
            pool_in_vms,
            ram,
            total: ram + pool_in_vms + unmapped,
            with_copies: ram + pool * rows.len() as u64,
            shmem_growth,
        }
    }

    /// The relative difference between the measured total and the pool (counted once) plus the VMs'
    /// RAM.
    pub fn deviation(&self) -> f64 {
        let expected = (self.pool + self.ram) as f64;
        (self.total as f64 - expected).abs() / expected
    }
}

impl Report {
    /// What is not as expected.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for vm in &self.vms {
            if vm.verified != self.shared.files {
                let (ok, all) = (vm.verified, self.shared.files);
                problems.push(format!("{}: {ok} of {all} files verified", vm.name));
            }
            if vm.faults.pmd == 0 && self.shared.bytes >= 2 << 20 {
                problems.push(format!("{}: no 2 MiB page fault", vm.name));
            }
            if !vm.new_file {
                problems.push(format!("{}: the new file's contents are wrong", vm.name));
            }
        }
        if self.host.deviation() > TOLERANCE {
            problems.push(format!(
                "host memory is {} MiB, expected {} MiB (pool once plus the VMs' RAM) within {:.0} %",
                self.host.total >> 20,
                (self.host.pool + self.host.ram) >> 20,
                TOLERANCE * 100.0
            ));
        }
        problems
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / 1_048_576.0);
        let shared = &self.shared;
        writeln!(
            f,
            "\n{} files, {} MiB of {} in a pool of {} MiB",
            shared.files,
            mib(shared.bytes),
            shared.dir.display(),
            shared.pool >> 20
        )?;
        for Skipped { path, reason } in &shared.skipped {
            // Some reasons already contain the path.
            let path = path.display();
            if reason.contains(&format!("\"{path}\"")) {
                writeln!(f, "  left out: {reason}")?;
            } else {
                writeln!(f, "  left out: {path}: {reason}")?;
            }
        }
        writeln!(
            f,
            "\n{:<8}{:<8}{:>8}{:>11}{:>14}{:>7}{:>7}{:>10}{:>10}{:>12}{:>12}",
            "VM",
            "role",
            "boot s",
            "attach ms",
            "files ok",
            "PMD",
            "PTE",
            "new file",
            "RAM MiB",
            "cache MiB",
            "pool MiB"
        )?;
        for vm in &self.vms {
            writeln!(
                f,
                "{:<8}{:<8}{:>8.1}{:>11}{:>14}{:>7}{:>7}{:>10}{:>10}{:>12}{:>12}",
                vm.name,
                vm.role,
                vm.boot_s,
                vm.attach_ms,
                format!("{}/{}", vm.verified, shared.files),
                vm.faults.pmd,
                vm.faults.pte,
                if vm.new_file { "ok" } else { "WRONG" },
                mib(vm.ram_used),
                mib(vm.page_cache),
                mib(vm.pool_mapped)
            )?;
        }
        writeln!(
            f,
            "PMD, PTE: page faults of 2 MiB and 4 KiB while hashing; RAM: pages the host gave the \
             VM;\ncache: the guest's page cache; pool: pool pages mapped by the VM\n"
        )?;
        let host = &self.host;
        writeln!(f, "host memory, MiB")?;
        writeln!(f, "  pool, pages of the file      {:>10}", mib(host.pool))?;
        writeln!(f, "  pool, in all VMs (sum of PSS){:>10}", mib(host.pool_in_vms))?;
        writeln!(f, "  RAM of all VMs               {:>10}", mib(host.ram))?;
        writeln!(
            f,
            "  together                     {:>10}   {:.1} % from pool once + RAM",
            mib(host.total),
            host.deviation() * 100.0
        )?;
        writeln!(f, "  with a copy in each VM       {:>10}", mib(host.with_copies))?;
        write!(
            f,
            "  Shmem in /proc/meminfo grew  {:>10}   (pool and RAM, and other programs of the host)",
            mib(host.shmem_growth)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pool_mapped: u64, pool_share: u64) -> VmRow {
        VmRow {
            name: "vm".into(),
            role: "client",
            boot_s: 1.0,
            attach_ms: 1,
            verified: 3,
            bytes: 4 << 20,
            faults: Faults { pmd: 2, pte: 1 },
            new_file: true,
            ram: 512 << 20,
            ram_used: 100 << 20,
            page_cache: 0,
            pool_mapped,
            pool_share,
        }
    }

    fn report(rows: Vec<VmRow>) -> Report {
        let host = HostMemory::account(90 << 20, &rows, 0);
        let shared =
            Shared { dir: "/d".into(), files: 3, bytes: 4 << 20, skipped: vec![], pool: 1 << 30 };
        Report { shared, vms: rows, host }
    }

    #[test]
    fn sharing_counts_the_pool_once() {
        let report = report(vec![row(80 << 20, 40 << 20), row(80 << 20, 40 << 20)]);
        assert_eq!(report.host.total, (200 + 80 + 10) << 20);
        assert!(report.host.deviation() < 1e-9);
        assert_eq!(report.problems(), Vec::<String>::new());
    }

    #[test]
    fn copies_are_noticed() {
        let report = report(vec![row(80 << 20, 80 << 20), row(80 << 20, 80 << 20)]);
        assert!(report.problems()[0].contains("host memory"), "{:?}", report.problems());
    }

    #[test]
    fn each_failed_check_is_a_problem() {
        let mut bad = row(90 << 20, 90 << 20);
        bad.verified = 2;
        bad.new_file = false;
        bad.faults = Faults::default();
        assert_eq!(report(vec![bad]).problems().len(), 3);
    }
}
