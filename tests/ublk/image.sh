# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
# Exports the device from which this VM has booted.
root=$(findmnt --noheadings --output SOURCE /)
serve add --image "$root" --read-only --queues 2
[[ $(blockdev --getro "$device" 2>/dev/null || cat /sys/block/"${device#/dev/}"/ro) == 1 ]]
queues=(/sys/block/"${device#/dev/}"/mq/*)
((${#queues[@]} == 2)) || fail "${#queues[@]} queues"
# Every thread of the server has exactly the privileges that it needs, and cannot gain more.
for status in /proc/"$server"/task/*/status; do
    grep -q '^CapBnd:[[:space:]]*0*$' "$status" || fail "$(grep Cap "$status")"
    # SYS_ADMIN, SYS_RESOURCE, IPC_LOCK, DAC_OVERRIDE.
    grep -q '^CapEff:[[:space:]]*0*1204002$' "$status" || fail "$(grep Cap "$status")"
    grep -q '^NoNewPrivs:[[:space:]]*1$' "$status"
done
cmp "$root" "$device"
mkdir -p $scratch/mnt
mount -t erofs -o ro "$device" $scratch/mnt
diff -r /usr/bin $scratch/mnt/usr/bin
diff -r /usr/lib/systemd $scratch/mnt/usr/lib/systemd
refused "is in use" vhost-famfs ublk del "$device"
umount $scratch/mnt
remove
