// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The bits of a guest's physical addresses: how many its pool needs, and how many are available.

use super::accelerator::Accelerator;
use super::config::{PoolDevice, VmConfig};

/// Bits of physical addresses in QEMU's own processor models: the default, and the maximum.
const EMULATED: u32 = 40;
const MOST: u32 = 52;

/// Address space of a guest that is neither RAM nor pool: what QEMU reserves for PCI below and
/// above 4 GiB.
const PCI_SPACE: u64 = (4 << 30) + (32 << 30);

/// The bits of physical addresses that a guest needs to see that many bytes of a pool.
#[must_use]
pub fn needed(config: &VmConfig, pool_bytes: u64) -> u32 {
    let top = match config.pools.first() {
        // The BAR has the size of the next power of two, is aligned to its size, and lies in what
        // the firmware leaves of the upper half. Measured with QEMU 11.1: 256 GiB fit into 40 bits,
        // 1 TiB does not.
        Some(PoolDevice::Shmem { .. }) => pool_bytes.next_power_of_two().saturating_mul(4),
        _ => pool_bytes.saturating_add(config.memory).saturating_add(PCI_SPACE).next_power_of_two(),
    };
    top.trailing_zeros()
}

/// The bits that are available, and the processor that limits them.
#[must_use]
pub fn found(accelerator: Accelerator, cpuinfo: &str) -> (u32, &'static str) {
    match accelerator {
        Accelerator::Kvm => (of_host(cpuinfo), "this host's processor"),
        Accelerator::Tcg | Accelerator::TcgThreads => (MOST, "QEMU's emulated processor"),
    }
}

/// The value of the `phys-bits` property that gives an emulated processor that many bits, if it is
/// needed.
#[must_use]
pub fn emulated(needed: u32) -> Option<u32> {
    (needed > EMULATED).then_some(needed)
}

/// The bits of the host's physical addresses; a guest under KVM has the same.
fn of_host(cpuinfo: &str) -> u32 {
    let sizes = cpuinfo.lines().find_map(|line| line.strip_prefix("address sizes"));
    let bits = sizes.and_then(|sizes| sizes.split_ascii_whitespace().find_map(|w| w.parse().ok()));
    bits.unwrap_or(EMULATED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_pool_needs_address_bits() {
        let bits = |size: u64, shmem| {
            let mut config = VmConfig::for_tests();
            config.pools = vec![if shmem {
                PoolDevice::Shmem { socket: "s".into() }
            } else {
                PoolDevice::Pmem { path: "p".into(), size, readonly: false }
            }];
            needed(&config, size)
        };
        assert_eq!(bits(256 << 30, true), 40);
        assert_eq!(bits(512 << 30, true), 41);
        assert_eq!(bits(1 << 40, true), 42);
        assert_eq!(bits(512 << 30, false), 40);
        assert_eq!(emulated(40), None);
        assert_eq!(emulated(42), Some(42));
        assert_eq!(
            of_host("model name: x\naddress sizes\t: 46 bits physical, 48 bits virtual\n"),
            46
        );
        assert_eq!(of_host(""), EMULATED, "QEMU's default");
    }
}
