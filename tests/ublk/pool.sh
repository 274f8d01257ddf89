# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
vhost-famfs pool create $scratch/pool --size 64M --mkfs >/dev/null
serve add --pool $scratch/pool
cmp --ignore-initial=2M:0 $scratch/pool "$device"
[[ $(stat --format=%s $scratch/pool) -eq $(($(<"/sys/block/${device#/dev/}/size") * 512 + (2 << 20))) ]]
printf 'through the device' | dd of="$device" bs=512 seek=100000 conv=notrunc,fsync status=none
printf 'through the device' | cmp --bytes=18 - <(tail -c +$((2 * 1024 * 1024 + 51200001)) $scratch/pool)
remove
serve add --pool $scratch/pool --read-only
refused "Operation not permitted" dd if=/dev/zero of="$device" bs=512 count=1 oflag=direct status=none
remove
famfs --pool $scratch/pool fsck >/dev/null
rm $scratch/pool
