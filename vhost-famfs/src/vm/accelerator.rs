// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a guest's instructions are run.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};

use super::deadline::Deadline;

/// A QEMU accelerator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accelerator {
    /// The host's processor, through /dev/kvm.
    Kvm,
    /// QEMU's own translator, with one thread for all processors. It works everywhere, but is slow.
    Tcg,
    /// The same with a thread per processor, which is faster if the host has many processors for
    /// few VMs. A store into code first drops the translations of that code (`notdirty_write()` of
    /// QEMU's accel/tcg/cputlb.c); until the store is made, another processor may translate the old
    /// bytes again and keep them. Linux rewrites its code at boot and later (static keys). If a
    /// thread has to wait for a host processor at that moment, the guest panics.
    TcgThreads,
}

/// Why an accelerator cannot run a guest.
#[derive(Debug, thiserror::Error)]
pub enum AcceleratorError {
    /// The trial could not be run.
    #[error("cannot try {accelerator} with {program}")]
    Trial {
        /// The accelerator.
        accelerator: Accelerator,
        /// QEMU.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// QEMU ended before the guest ended it.
    #[error("{accelerator} did not run a guest: QEMU ended ({status})")]
    Ended {
        /// The accelerator.
        accelerator: Accelerator,
        /// How QEMU ended.
        status: ExitStatus,
    },
    /// The guest made no progress.
    #[error("{accelerator} did not run a guest's first instructions within {TRIAL_LIMIT:?}")]
    Stuck {
        /// The accelerator.
        accelerator: Accelerator,
    },
}

/// Size of the trial's ROM, the smallest that QEMU accepts.
const ROM_SIZE: u64 = 64 << 10;
/// Where the processor starts: 16 bytes before the end.
const RESET_VECTOR: u64 = ROM_SIZE - 16;
/// The port of the trial's exit device, and the byte that the guest writes to it.
const EXIT_PORT: u16 = 0x501;
const EXIT_BYTE: u8 = 0x2a;
/// How long the guest may take for four instructions; QEMU's own start takes most of it.
const TRIAL_LIMIT: Duration = Duration::from_secs(10);

impl Accelerator {
    /// KVM if it works here, else TCG, with the reason for the user.
    ///
    /// That /dev/kvm opens proves nothing: a guest of a hypervisor without nesting may have the
    /// device although its processor offers no virtualization, and a VM would hang there. So this
    /// checks the processor too, and then lets `qemu` run a few instructions.
    #[must_use]
    pub fn detect(qemu: &Path) -> (Self, String) {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        if !offers_virtualization(&cpuinfo) {
            return (Self::Tcg, "the processor offers neither vmx nor svm".into());
        }
        if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") {
            return (Self::Tcg, format!("cannot open /dev/kvm: {error}"));
        }
        match Self::Kvm.try_with(qemu) {
            Ok(()) => (Self::Kvm, "it just ran a guest".into()),
            Err(error) => (Self::Tcg, error.to_string()),
        }
    }

    /// Runs a guest of four instructions: a ROM that ends QEMU by writing a byte to a port.
    ///
    /// # Errors
    /// The guest did not end QEMU.
    pub fn try_with(self, qemu: &Path) -> Result<(), AcceleratorError> {
        let failed = |source| AcceleratorError::Trial {
            accelerator: self,
            program: qemu.display().to_string(),
            source,
        };
        let rom = rom().map_err(failed)?;
        let mut command = Command::new(qemu);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-m", "16M"]);
        command.args(["-machine", "q35", "-accel", self.name()]);
        command.arg("-device").arg(format!("isa-debug-exit,iobase={EXIT_PORT:#x},iosize=1"));
        command.arg("-bios").arg(format!("/proc/{}/fd/{}", std::process::id(), rom.as_raw_fd()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut trial = Trial(command.spawn().map_err(failed)?);
        let ended = Deadline::after(TRIAL_LIMIT).poll(|| trial.0.try_wait()).map_err(failed)?;
        match ended {
            // The device turns the byte into an odd exit code.
            Some(status) if status.code() == Some(i32::from(EXIT_BYTE) << 1 | 1) => Ok(()),
            Some(status) => Err(AcceleratorError::Ended { accelerator: self, status }),
            None => Err(AcceleratorError::Stuck { accelerator: self }),
        }
    }

    /// The value of `-accel`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,thread=single",
            Self::TcgThreads => "tcg,thread=multi",
        }
    }

    /// The value of `-cpu`.
    pub(crate) fn cpu(self) -> &'static str {
        match self {
            Self::Kvm => "host",
            // With "enhanced rep movsb", the guest copies with an instruction that TCG runs byte by
            // byte, four to five times slower than the loop that the guest uses otherwise.
            Self::Tcg | Self::TcgThreads => "max,-erms,-fsrm",
        }
    }
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A trial QEMU, killed when dropped.
struct Trial(Child);

impl Drop for Trial {
    fn drop(&mut self) {
        // Both fail only for a child that has already been reaped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The trial's ROM: code for 16-bit mode, in which a processor starts.
fn rom() -> io::Result<File> {
    let rom = File::from(rustix::fs::memfd_create("trial", MemfdFlags::CLOEXEC)?);
    rom.set_len(ROM_SIZE)?;
    let [low, high] = EXIT_PORT.to_le_bytes();
    // mov dx, EXIT_PORT; mov al, EXIT_BYTE; out dx, al; hlt
    rom.write_all_at(&[0xba, low, high, 0xb0, EXIT_BYTE, 0xee, 0xf4], RESET_VECTOR)?;
    Ok(rom)
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
