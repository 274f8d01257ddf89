# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
mkdir -p $scratch/small
mount -t tmpfs -o size=8M small $scratch/small
head -c 32M /dev/zero | tr '\0' x >$scratch/image
serve add --image $scratch/image --overlay $scratch/small/overlay
dd if=/dev/zero of="$device" bs=1M count=4 oflag=direct status=none
sync "$device"
if dd if=/dev/zero of="$device" bs=1M seek=4 count=28 oflag=direct status=none 2>$scratch/message; then
    fail "32 MiB fit into 8 MiB"
fi
grep -q 'No space left\|Input/output' $scratch/message || fail "$(<$scratch/message)"
# Existing data is intact, and what was not written is unchanged.
cmp --bytes=4M "$device" /dev/zero
cmp --bytes=4M --ignore-initial=28M:0 "$device" $scratch/image
# There is room again: the device continues.
fallocate --punch-hole --offset 0 --length 4M "$device"
dd if=/dev/zero of="$device" bs=1M seek=20 count=1 oflag=direct conv=fsync status=none
remove
serve add --image $scratch/image --overlay $scratch/small/overlay
cmp --bytes=4M "$device" /dev/zero
cmp --bytes=1M --ignore-initial=20M:0 "$device" /dev/zero
remove
umount $scratch/small
rmdir $scratch/small
rm $scratch/image $scratch/message
