// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CPU cache maintenance for shared memory that is not coherent between hosts.
//!
//! Write back after writing, invalidate before reading; both end with a fence. On coherent memory
//! (every guest of one host) the instructions have no visible effect.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

/// Smallest cache line of the supported CPUs; a longer line is only maintained more than once.
const LINE: usize = 64;

/// Writes the cache lines of `[start, start + len)` back to memory, then fences.
///
/// # Safety
/// The range must be mapped for reading.
pub unsafe fn write_back(start: *const u8, len: usize) {
    // SAFETY: the caller makes the promise that `each_line` needs.
    unsafe { each_line(start, len, arch::write_back_line()) };
}

/// Drops the cache lines of `[start, start + len)`, written back first if dirty, then fences.
///
/// # Safety
/// The range must be mapped for reading.
pub unsafe fn invalidate(start: *const u8, len: usize) {
    // SAFETY: the caller makes the promise that `each_line` needs.
    unsafe { each_line(start, len, arch::invalidate_line()) };
}

/// Whether the memory is coherent between all that use it, so that fences are enough.
static COHERENT: AtomicBool = AtomicBool::new(false);

/// Declares whether all memory that this process maps is coherent between all systems that use it,
/// as for virtual machines on one host. If so, cache lines are left alone and only the fences stay.
pub fn set_coherent(coherent: bool) {
    COHERENT.store(coherent, Ordering::Relaxed);
}

/// Runs `line` on every cache line of the range.
///
/// # Safety
/// The range must be mapped for reading.
unsafe fn each_line(start: *const u8, len: usize, line: unsafe fn(*const u8)) {
    if COHERENT.load(Ordering::Relaxed) {
        arch::fence();
        return;
    }
    let first = start.align_down(LINE);
    let end = start.wrapping_add(len);
    let mut at = first;
    while at < end {
        // SAFETY: `at` shares its line, hence its page, with a byte of the caller's range.
        unsafe { line(at) };
        at = at.wrapping_add(LINE);
    }
    arch::fence();
}

/// Rounding of a pointer that keeps its provenance.
trait AlignDown {
    fn align_down(self, to: usize) -> Self;
}

impl AlignDown for *const u8 {
    fn align_down(self, to: usize) -> Self {
        self.wrapping_sub(self.addr() % to)
    }
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count, _mm_clflush, _mm_mfence};
    use std::sync::LazyLock;

    /// CPUID leaf 7, EBX: bit 23 CLFLUSHOPT, bit 24 CLWB (Intel SDM volume 2, CPUID).
    static LEAF_7_EBX: LazyLock<u32> =
        LazyLock::new(|| if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).ebx } else { 0 });

    pub fn write_back_line() -> unsafe fn(*const u8) {
        if *LEAF_7_EBX & 1 << 24 != 0 { clwb } else { invalidate_line() }
    }

    pub fn invalidate_line() -> unsafe fn(*const u8) {
        if *LEAF_7_EBX & 1 << 23 != 0 { clflushopt } else { clflush }
    }

    /// Orders loads too, which a store fence would let overtake the invalidation.
    pub fn fence() {
        // SAFETY: every x86-64 CPU has SSE2.
        unsafe { _mm_mfence() };
    }

    unsafe fn clwb(line: *const u8) {
        // SAFETY: CPUID reported CLWB; the caller promises that `line` is mapped.
        unsafe { asm!("clwb [{}]", in(reg) line, options(nostack, preserves_flags)) };
    }

    unsafe fn clflushopt(line: *const u8) {
        // SAFETY: CPUID reported CLFLUSHOPT; the caller promises that `line` is mapped.
        unsafe { asm!("clflushopt [{}]", in(reg) line, options(nostack, preserves_flags)) };
    }

    unsafe fn clflush(line: *const u8) {
        // SAFETY: every x86-64 CPU has CLFLUSH; the caller promises that `line` is mapped.
        unsafe { _mm_clflush(line) };
    }
}

#[cfg(target_arch = "aarch64")]
mod arch {
    use std::arch::asm;

    pub fn write_back_line() -> unsafe fn(*const u8) {
        cvac
    }

    pub fn invalidate_line() -> unsafe fn(*const u8) {
        civac
    }

    pub fn fence() {
        // SAFETY: a barrier touches no memory of ours.
        unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
    }

    unsafe fn cvac(line: *const u8) {
        // SAFETY: Linux lets user space clean lines (SCTLR_EL1.UCI); `line` is mapped.
        unsafe { asm!("dc cvac, {}", in(reg) line, options(nostack, preserves_flags)) };
    }

    unsafe fn civac(line: *const u8) {
        // SAFETY: Linux lets user space clean lines (SCTLR_EL1.UCI); `line` is mapped.
        unsafe { asm!("dc civac, {}", in(reg) line, options(nostack, preserves_flags)) };
    }
}

#[cfg(test)]
mod tests {
    /// The instructions must run on this CPU and leave the data alone, whatever the alignment.
    #[test]
    fn maintenance_keeps_the_data() {
        let data: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let copy = data.clone();
        for (skip, len) in [(0, 1000), (1, 64), (63, 2), (999, 1), (10, 0)] {
            // SAFETY: `skip + len` is within `data`.
            unsafe { super::write_back(data[skip..].as_ptr(), len) };
            // SAFETY: as above.
            unsafe { super::invalidate(data[skip..].as_ptr(), len) };
        }
        assert_eq!(data, copy);
    }
}
