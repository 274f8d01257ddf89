// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What runs the guest's instructions.

use std::fmt;
use std::fs::{self, OpenOptions};

/// A QEMU accelerator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor, through /dev/kvm.
    Kvm,
    /// QEMU's own translator: everywhere, but slow.
    Tcg,
    /// The same with one thread for all processors: slower still, but code that one processor rewrites is never
    /// run by another as it was before, which a thread for each does not guarantee.
    TcgOneThread,
}

impl Accelerator {
    /// KVM if it can work here, else TCG; with the reason, for people.
    ///
    /// That /dev/kvm opens proves nothing: a guest of a hypervisor without nesting may have the device but a
    /// processor that offers no virtualization, and a VM there hangs. So the processor is asked as well.
    #[must_use]
    pub fn detect() -> (Self, String) {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        if !offers_virtualization(&cpuinfo) {
            return (Self::Tcg, "the processor offers neither vmx nor svm".into());
        }
        match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
            Ok(_) => (Self::Kvm, "/dev/kvm opens and the processor offers virtualization".into()),
            Err(error) => (Self::Tcg, format!("cannot open /dev/kvm: {error}")),
        }
    }

    /// The value of `-accel`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
            Self::TcgOneThread => "tcg,thread=single",
        }
    }

    /// The value of `-cpu`.
    pub(super) fn cpu(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            // With "enhanced rep movsb" the guest copies with an instruction that TCG runs byte by byte,
            // four to five times slower than the loop the guest uses without it.
            Self::Tcg | Self::TcgOneThread => "max,-erms,-fsrm",
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether /proc/cpuinfo lists Intel's or AMD's virtualization extension.
fn offers_virtualization(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.trim() == "flags")
        .any(|(_, flags)| flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_flags_line_counts() {
        assert!(offers_virtualization("model name\t: X\nflags\t\t: fpu vmx sse\n"));
        assert!(offers_virtualization("flags\t\t: fpu svm\n"));
        assert!(!offers_virtualization(
            "flags\t\t: fpu svm_lock\nbugs\t\t: vmx\nvmx flags\t: vnmi\n"
        ));
        assert!(!offers_virtualization(""));
    }
}
