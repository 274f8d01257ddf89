// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks whether the host has the memory that a cluster may need.

use std::fmt;
use std::io;
use std::path::PathBuf;

use famfs::text::units::{Bytes, count};

use super::plan::ClusterPlan;
use super::spec::Access;
use crate::host::memory::{Available, Bound};
use crate::host::residency;
use crate::pool::Kind;

/// What a cluster may need at most, and what is available.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headroom {
    /// Number of VMs.
    pub vms: usize,
    /// Their RAM in total, in bytes.
    pub ram: u64,
    /// Bytes of the pool that are not yet in memory.
    pub pool: u64,
    /// The memory that is available.
    pub available: Available,
}

/// Why a cluster does not have enough memory.
#[derive(Debug, thiserror::Error)]
pub enum HeadroomError {
    /// There would not be enough if the guests used all of their memory.
    #[error(
        "too little memory: {}; reduce the VMs' memory (memory = \"512M\" in a cluster file), \
         start fewer, use a smaller pool, or {}; if the guests will not use all of it, start them \
         with --overcommit",
        .0, way_out(&.0.available.bound)
    )]
    TooLittle(Headroom),
    /// The kernel does not tell what is available.
    #[error("cannot determine how much memory is available")]
    Unknown(#[source] io::Error),
    /// The pool cannot be examined.
    #[error("pool {}", path.display())]
    Pool {
        /// The pool.
        path: PathBuf,
        /// The cause.
        #[source]
        source: residency::MemoryError,
    },
}

fn way_out(bound: &Bound) -> &'static str {
    match bound {
        Bound::Host => "add swap space",
        Bound::Group(_) => "raise that limit",
    }
}

impl Headroom {
    /// What a plan may need, and what is available. `returned` is the number of bytes that VMs have
    /// which end before.
    ///
    /// # Errors
    /// The memory of the pool or of the host cannot be determined.
    pub fn of(plan: &ClusterPlan, returned: u64) -> Result<Self, HeadroomError> {
        let source = |source| HeadroomError::Pool { path: plan.pool.path.clone(), source };
        let available = Available::look().map_err(HeadroomError::Unknown)?;
        Ok(Self {
            vms: plan.vms.len(),
            ram: plan.vms.iter().map(|vm| vm.config.memory).fold(0, u64::saturating_add),
            pool: missing(plan).map_err(source)?,
            available: Available { bytes: available.bytes.saturating_add(returned), ..available },
        })
    }

    /// Whether there is enough memory if the guests use all of theirs.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.ram.saturating_add(self.pool) <= self.available.bytes
    }
}

/// Bytes of memory that a pool still needs if guests touch all of it. Reserved huge pages are not
/// part of the available memory, and the kernel can reclaim the pages of a file on disk.
fn missing(plan: &ClusterPlan) -> Result<u64, residency::MemoryError> {
    let pool = &plan.pool;
    let end = used_end(plan);
    match pool.kind {
        Kind::Hugetlbfs | Kind::File | Kind::Devdax => Ok(0),
        Kind::Memfd | Kind::Tmpfs if pool.create.is_some() => Ok(end),
        Kind::Memfd | Kind::Tmpfs => Ok(end.saturating_sub(residency::allocated(&pool.path)?)),
    }
}

/// The first byte of the pool after all that the cluster uses: nobody stores behind the file system
/// but slices.
pub(super) fn used_end(plan: &ClusterPlan) -> u64 {
    let has_slices = plan.vms.iter().any(|vm| matches!(vm.access, Access::Slice { .. }));
    plan.pool.famfs_end.filter(|_| !has_slices).unwrap_or(plan.pool.size)
}

impl fmt::Display for Headroom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vms, ram, pool, available } = self;
        let up = |bytes: u64| Bytes(bytes.checked_next_multiple_of(1 << 20).unwrap_or(bytes));
        let down = Bytes(available.bytes & !((1 << 20) - 1));
        let vms = count(*vms, "VM", "VMs");
        write!(f, "up to {} needed, {} by {vms}", up(ram.saturating_add(*pool)), up(*ram))?;
        write!(f, " and {} by the pool; {} has {down} available", up(*pool), available.bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_has_the_numbers_and_the_way_out() {
        let available = Available { bytes: (3 << 30) + 5000, bound: Bound::Host };
        let headroom = Headroom { vms: 3, ram: 3 << 30, pool: (512 << 20) - 4096, available };
        assert_eq!(
            HeadroomError::TooLittle(headroom.clone()).to_string(),
            "too little memory: up to 3584 MiB needed, 3 GiB by 3 VMs and 512 MiB by the pool; \
             this host has 3 GiB available; reduce the VMs' memory (memory = \"512M\" in a cluster \
             file), start fewer, use a smaller pool, or add swap space; if the guests will not use \
             all of it, start them with --overcommit"
        );
        let bound = Bound::Group("/sys/fs/cgroup/x/memory.max".into());
        let available = Available { bound, ..headroom.available };
        let text = HeadroomError::TooLittle(Headroom { available, ..headroom }).to_string();
        assert!(
            text.contains("the control group limited by /sys/fs/cgroup/x/memory.max has 3 GiB")
        );
        assert!(text.contains("or raise that limit;"), "{text}");
    }
}
