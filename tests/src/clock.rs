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

use crate::sys::time_stamp;

/// Time over which the host's counter is measured: it is exact to a hundred-thousandth.
const SPAN: Duration = Duration::from_millis(50);

/// How often counter and time are read to have them from the same moment.
const TRIES: u32 = 100;

/// The word of the kernel command line for a guest whose counter is the host's.
pub fn host_counter() -> String {
    static KHZ: OnceLock<u128> = OnceLock::new();
    format!("tsc_early_khz={}", KHZ.get_or_init(measure))
}

/// Counts in a millisecond.
fn measure() -> u128 {
    let (first, begin) = reading();
    thread::sleep(SPAN);
    let (last, end) = reading();
    u128::from(last - first) * 1_000_000 / (end - begin).as_nanos()
}

/// The counter, and the time when it was that.
fn reading() -> (u64, Instant) {
    let mut best = (u64::MAX, 0, Instant::now());
    for _ in 0..TRIES {
        let before = time_stamp();
        let now = Instant::now();
        let took = time_stamp().saturating_sub(before);
        if took < best.0 {
            best = (took, before, now);
        }
    }
    (best.1, best.2)
}

#[cfg(test)]
mod tests {
    use super::measure;

    #[test]
    fn two_measurements_agree() {
        let (one, two) = (measure(), measure());
        assert!(one.abs_diff(two) * 1000 < one, "{one} and {two} kHz");
    }
}
