// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kernel's command line.

use super::{ROOT_SERIAL, ROOT_SLOT, VmConfig};
use crate::vm::accelerator::Accelerator;
use crate::vm::image::{Image, Root};
use crate::vm::system::{Start, System};

/// Emulated code needs no mitigations against speculation, and its clock is QEMU's.
pub(crate) const EMULATED_WORDS: [&str; 5] =
    ["mitigations=off", "nokaslr", "tsc=reliable", "no_timer_check", "cryptomgr.notests"];

/// What an appliance is told besides.
const APPLIANCE_WORDS: [&str; 11] = [
    // Only warnings and worse go to the console, which prints slowly; dmesg has the rest.
    "loglevel=5",
    // Do not rate-limit systemd's messages in the kernel log.
    "printk.devkmsg=on",
    "systemd.tty.term.console=dumb",
    // No security module has a policy in the guest.
    "lsm=",
    "audit=0",
    "8250.nr_uarts=1",
    // If there can be memory above 4 GiB, the kernel reserves 64 MiB of bounce buffers for
    // devices that cannot reach it. Virtio devices can, so reserve the minimum, 512 slots
    // of 2 KiB.
    "swiotlb=512",
    // What wakes an idle guest for nobody, several times a second: accounts of waiting that no
    // program here reads, statistics of accesses to memory, and compaction before anybody needs
    // it (what needs huge pages still compacts memory then; those of a pool are no guest RAM).
    "psi=0",
    "damon_stat.enabled=N",
    "sysctl.vm.compaction_proactiveness=0",
    // A processor counts as locked up after 120 s instead of 20 s, and is checked every 24 s
    // instead of 4 s: on a busy host, a VM may well not run for some seconds.
    "watchdog_thresh=60",
];

impl VmConfig {
    /// The parameters for the guest's kernel, as one line. Firmware takes none.
    pub(crate) fn kernel_command_line(&self) -> String {
        let mut words = vec!["console=ttyS0".to_owned()];
        if let System::Appliance(image) = &self.system {
            words.extend(self.root_words(image));
        }
        // A panic ends the VM at once instead of waiting for a reader: the message is in the
        // console log.
        words.push("panic=-1".to_owned());
        if self.system.appliance().is_some() {
            words.extend(APPLIANCE_WORDS.map(str::to_owned));
        }
        if self.accelerator != Accelerator::Kvm {
            words.extend(EMULATED_WORDS.map(str::to_owned));
        }
        words.extend(self.kernel_args.iter().cloned());
        // The last word counts, so the user's come last.
        if let Some(Start::Kernel { append, .. }) = self.system.own().map(|own| &own.start) {
            words.push(append.clone());
        }
        words.join(" ")
    }

    /// The parameters that tell the guest where its root is.
    fn root_words(&self, image: &Image) -> Vec<String> {
        let disk = format!("root=/dev/disk/by-id/virtio-{ROOT_SERIAL}");
        match self.root {
            Root::Disk | Root::Ublk => vec![disk],
            Root::Memory => vec![format!("root=/dev/disk/by-path/pci-0000:00:{ROOT_SLOT}.0")],
            Root::Initrd => Vec::new(),
            Root::Verity => {
                vec![disk, format!("roothash={}", image.root_hash().unwrap_or_default())]
            }
        }
    }
}
