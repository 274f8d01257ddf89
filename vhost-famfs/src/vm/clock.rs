// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tells an emulated guest how fast its clock runs.
//!
//! QEMU's translator gives guests the host's time stamp counter (`cpu_get_ticks()` of its
//! system/cpu-timers.c). Linux measures the counter's frequency in the first 10 ms of a boot,
//! against a timer that keeps running while the thread that runs the guest waits for a processor.
//! On a busy host, it measures a few per cent of the true frequency. Its seconds are too short by
//! the same factor, so every timeout in the guest expires far too early. Therefore the guest is
//! told the frequency (kernel-parameters.txt, `tsc_early_khz`).

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use super::accelerator::Accelerator;
use super::config::VmConfig;
use crate::host::sys::time_stamp;

/// How long to measure the host's counter; the result is accurate to 0.01 %.
const SPAN: Duration = Duration::from_millis(10);

/// How often to read counter and time, to get a pair from the same moment.
const TRIES: u32 = 100;

impl VmConfig {
    /// Tells a guest that starts now the frequency of its counter, if it has the host's counter.
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

/// Counts per millisecond; `None` if the processor has no such counter.
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

/// The counter, and the time at which it was read.
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
