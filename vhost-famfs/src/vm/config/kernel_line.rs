// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kernel's command line.

use super::{ROOT_SERIAL, ROOT_SLOT, VmConfig};
use crate::vm::accelerator::Accelerator;
use crate::vm::image::Root;

/// Translated code has no speculation to guard against, and its clock is QEMU's.
pub(crate) const EMULATED_WORDS: [&str; 5] =
    ["mitigations=off", "nokaslr", "tsc=reliable", "no_timer_check", "cryptomgr.notests"];

impl VmConfig {
    /// The words for the guest's kernel, as one line.
    pub(crate) fn kernel_command_line(&self) -> String {
        let mut words = vec!["console=ttyS0".to_owned()];
        words.extend(self.root_words());
        words.extend([
            // A panic ends the VM at once instead of waiting for someone to read it: it is in the console log.
            "panic=-1".to_owned(),
            // Warnings and worse on the console, which is slow to print; the rest is for dmesg.
            "loglevel=5".into(),
            // systemd's messages are not rate-limited out of the kernel log.
            "printk.devkmsg=on".into(),
            "systemd.tty.term.console=dumb".into(),
            // No security module has a policy here.
            "lsm=".into(),
            "audit=0".into(),
            "8250.nr_uarts=1".into(),
            // Where memory above 4 GiB can come, the kernel sets 64 MiB aside to copy for devices that cannot reach
            // it. Virtio devices can: here it is the least, 512 slots of 2 KiB.
            "swiotlb=512".into(),
        ]);
        if self.accelerator != Accelerator::Kvm {
            words.extend(EMULATED_WORDS.map(str::to_owned));
        }
        words.extend(self.kernel_args.iter().cloned());
        words.join(" ")
    }

    /// What tells the guest where its root is.
    fn root_words(&self) -> Vec<String> {
        let disk = format!("root=/dev/disk/by-id/virtio-{ROOT_SERIAL}");
        match self.root {
            Root::Disk => vec![disk],
            Root::Memory => vec![format!("root=/dev/disk/by-path/pci-0000:00:{ROOT_SLOT}.0")],
            Root::Initrd => Vec::new(),
            Root::Verity => {
                vec![disk, format!("roothash={}", self.image.root_hash().unwrap_or_default())]
            }
        }
    }
}
