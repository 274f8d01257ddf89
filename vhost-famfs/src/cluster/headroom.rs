// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether the host has the memory that a cluster may take.

use std::fmt;
use std::io;
use std::path::PathBuf;

use famfs::text::units::{Bytes, count};

use super::plan::{Plan, PoolPlan};
use crate::host::memory::{Available, Bound};
use crate::host::residency;
use crate::pool::Kind;

/// What a cluster may take at most, and what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headroom {
    /// VMs.
    pub vms: usize,
    /// Bytes of their RAM in all.
    pub ram: u64,
    /// Bytes of the pool that are not in memory yet.
    pub pool: u64,
    /// What there is.
    pub available: Available,
}

/// Why a cluster has not the memory.
#[derive(Debug, thiserror::Error)]
pub enum HeadroomError {
    /// It would not be enough if the guests used all of it.
    #[error(
        "too little memory: {}; give the VMs less (memory = \"512M\" in a cluster file), start fewer, \
         take a smaller pool, or {}; if the guests will not use all of it, start them with --overcommit",
        .0, way_out(&.0.available.bound)
    )]
    TooLittle(Headroom),
    /// The kernel does not tell what there is.
    #[error("cannot find out how much memory is available")]
    Unknown(#[source] io::Error),
    /// The pool cannot be looked at.
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
    /// What a plan may take, and what there is.
    ///
    /// # Errors
    /// The pool or the kernel does not tell.
    pub fn of(plan: &Plan) -> Result<Self, HeadroomError> {
        let source = |source| HeadroomError::Pool { path: plan.pool.path.clone(), source };
        Ok(Self {
            vms: plan.vms.len(),
            ram: plan.vms.iter().map(|vm| vm.config.memory).fold(0, u64::saturating_add),
            pool: missing(&plan.pool).map_err(source)?,
            available: Available::look().map_err(HeadroomError::Unknown)?,
        })
    }

    /// Whether there is enough if guests use all that they may.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.ram.saturating_add(self.pool) <= self.available.bytes
    }
}

/// Bytes of memory that a pool takes when guests touch all of it. Huge pages were set aside before and are not
/// part of what is available; the pages of a file on storage are given back.
fn missing(pool: &PoolPlan) -> Result<u64, residency::MemoryError> {
    match pool.kind {
        Kind::Hugetlbfs | Kind::File | Kind::Devdax => Ok(0),
        Kind::Memfd | Kind::Tmpfs if pool.create.is_some() => Ok(pool.size),
        Kind::Memfd | Kind::Tmpfs => {
            Ok(pool.size.saturating_sub(residency::allocated(&pool.path)?))
        }
    }
}

impl fmt::Display for Headroom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vms, ram, pool, available } = self;
        let up = |bytes: u64| Bytes(bytes.checked_next_multiple_of(1 << 20).unwrap_or(bytes));
        let down = Bytes(available.bytes & !((1 << 20) - 1));
        let vms = count(*vms, "VM", "VMs");
        write!(f, "{} may be taken, {} by {vms}", up(ram.saturating_add(*pool)), up(*ram))?;
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
            "too little memory: 3584 MiB may be taken, 3 GiB by 3 VMs and 512 MiB by the pool; this host has \
             3 GiB available; give the VMs less (memory = \"512M\" in a cluster file), start fewer, take a \
             smaller pool, or add swap space; if the guests will not use all of it, start them with --overcommit"
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
