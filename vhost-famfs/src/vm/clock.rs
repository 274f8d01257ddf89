// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How fast the clock of an emulated guest runs.
//!
//! QEMU's translator gives guests the host's time stamp counter (`cpu_get_ticks()` of its system/cpu-timers.c). Linux
//! measures it in the first 10 ms of a boot, against a timer that goes on while the thread that runs the guest waits for a
//! processor. On a busy host it finds a few per cent of what is right, and then its seconds are that short: whatever has a
//! limit in the guest is over before it has begun. So the guest is told (kernel-parameters.txt, `tsc_early_khz`).

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use super::accelerator::Accelerator;
use super::config::VmConfig;
use crate::host::sys::time_stamp;

/// Time over which the host's counter is measured: it is exact to a ten-thousandth.
const SPAN: Duration = Duration::from_millis(10);

/// How often counter and time are read to have them from the same moment.
const TRIES: u32 = 100;

impl VmConfig {
    /// Tells the kernel of a guest that starts now how fast its counter is, if that is the one of this host.
    pub(super) fn tell_clock(&mut self) {
        let counts_instructions = self.qemu_args.iter().any(|argument| argument == "-icount");
        if self.accelerator == Accelerator::Kvm || counts_instructions {
            return;
        }
        if let Some(khz) = host_counter() {
            self.kernel_args.push(format!("tsc_early_khz={khz}"));
        }
    }
}

/// Counts in a millisecond; `None` if the processor has no such counter.
fn host_counter() -> Option<u128> {
    static KHZ: OnceLock<Option<u128>> = OnceLock::new();
    *KHZ.get_or_init(measure)
}

fn measure() -> Option<u128> {
    let (first, begin) = reading()?;
    thread::sleep(SPAN);
    let (last, end) = reading()?;
    u128::from(last.checked_sub(first)?)
        .checked_mul(1_000_000)?
        .checked_div((end - begin).as_nanos())
}

/// The counter, and the time when it was that.
fn reading() -> Option<(u64, Instant)> {
    let readings = (0..TRIES).filter_map(|_| {
        let before = time_stamp()?;
        let now = Instant::now();
        Some((time_stamp()?.checked_sub(before)?, before, now))
    });
    let (_, counter, now) = readings.min_by_key(|(took, ..)| *took)?;
    Some((counter, now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::{Image, VmPaths};

    #[test]
    fn two_measurements_agree() {
        let (Some(one), Some(two)) = (measure(), measure()) else {
            assert_eq!(time_stamp(), None);
            return;
        };
        assert!(one.abs_diff(two) * 1000 < one, "{one} and {two} kHz");
    }

    #[test]
    fn only_a_guest_with_the_hosts_counter_is_told() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["vmlinux", "initrd.cpio", "root.erofs"] {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        let image = Image::open(dir.path()).unwrap();
        let config =
            VmConfig::new("vm1", "qemu", image, VmPaths::new("vm1", dir.path(), dir.path()));
        let told = |mut config: VmConfig| {
            config.tell_clock();
            config.kernel_args.iter().any(|word| word.starts_with("tsc_early_khz="))
        };
        let tcg = VmConfig { accelerator: Accelerator::Tcg, ..config };
        assert_eq!(told(tcg.clone()), time_stamp().is_some());
        let counting = vec!["-icount".into(), "shift=0".into()];
        assert!(!told(VmConfig { qemu_args: counting, ..tcg.clone() }));
        assert!(!told(VmConfig { accelerator: Accelerator::Kvm, ..tcg }));
    }
}
