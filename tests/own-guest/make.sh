#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Makes the disk of a Debian with our packages, as a user has one. Runs as root in a system of its
# own (xtask/src/own_guest.rs) with the packages in /mnt, and leaves there disk.raw, which BIOS and
# UEFI boot, and its kernel, its initrd and a UEFI firmware beside it.
set -euo pipefail

ESP_MIB=256
# All that the kernel is told that the disk boots: the host adds nothing to it.
LINE="root=LABEL=own-guest rw console=ttyS0 panic=-1 mitigations=off clocksource=hpet"

apt-get install --yes --no-install-recommends /mnt/*.deb
module=$(find /lib/modules -name 'famfs.ko*')
[[ -n $module ]] || { echo "DKMS has built no module" >&2; exit 1; }
# Its host gives it a name.
rm -f /etc/hostname

release=$(ls /lib/modules)
cp "/boot/vmlinuz-$release" /mnt/vmlinuz
cp "/boot/initrd.img-$release" /mnt/initrd
cp /usr/share/ovmf/OVMF.fd /mnt/firmware
ukify build --linux /mnt/vmlinuz --initrd /mnt/initrd --uname "$release" \
    --cmdline "$LINE" --output /tmp/own.efi

# The root without what is mounted on it.
mkdir /tmp/root
mount --bind / /tmp/root
root_mib=$(($(du -sm /tmp/root | cut -f 1) * 5 / 4 + 256))
mke2fs -q -t ext4 -L own-guest -d /tmp/root /mnt/root.part "${root_mib}M"
truncate -s "${ESP_MIB}M" /mnt/esp.part
mkfs.vfat -n ESP /mnt/esp.part
mmd -i /mnt/esp.part ::EFI ::EFI/BOOT
mcopy -i /mnt/esp.part /tmp/own.efi ::EFI/BOOT/BOOTX64.EFI
# A BIOS finds a boot loader in the same partition.
cat >/tmp/syslinux.cfg <<END
DEFAULT own
LABEL own
LINUX vmlinuz
INITRD initrd
APPEND $LINE
END
mcopy -i /mnt/esp.part /mnt/vmlinuz /mnt/initrd /tmp/syslinux.cfg ::
syslinux --install /mnt/esp.part

truncate -s "$((ESP_MIB + root_mib + 2))M" /mnt/disk.raw
sfdisk --quiet /mnt/disk.raw <<END
label: gpt
start=1MiB, size=${ESP_MIB}MiB, type=uefi, attrs=LegacyBIOSBootable
size=${root_mib}MiB, type=linux
END
put() {
    dd if="$1" of=/mnt/disk.raw bs=1M seek="$2" conv=sparse,notrunc status=none
    rm "$1"
}
put /mnt/esp.part 1
put /mnt/root.part $((ESP_MIB + 1))
dd if=/usr/lib/syslinux/mbr/gptmbr.bin of=/mnt/disk.raw bs=440 count=1 conv=notrunc status=none
