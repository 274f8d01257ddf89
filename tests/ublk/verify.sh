# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
# $options and $zero_copy determine how data is passed to and from the server.
truncate --size 48M $scratch/image
serve add --image $scratch/image --overlay $scratch/overlay $options
[[ $(vhost-famfs ublk list --json) == *"\"zero_copy\":$zero_copy,"* ]] || fail "$(vhost-famfs ublk list --json)"
common=(--filename="$device" --direct=1 --ioengine=io_uring --verify=crc32c --verify_fatal=1 --output=$scratch/fio)
fio --name=mixed --rw=randwrite --bssplit=512/20:4k/40:24k/20:128k/20 --blockalign=512 --size=32M \
    --iodepth=8 --fsync=32 "${common[@]}" >/dev/null || fail "$(<$scratch/fio)"
# Zeroing, as holes and as ranges, of what fio wrote and of the image.
fallocate --punch-hole --offset 1M --length 9M "$device"
fallocate --zero-range --offset 30M --length 9M "$device"
cmp --bytes=9M --ignore-initial=1M:0 "$device" /dev/zero
cmp --bytes=9M --ignore-initial=30M:0 "$device" /dev/zero
fio --name=trim --rw=trimwrite --bs=64k --size=16M --offset=16M "${common[@]}" >/dev/null || fail "$(<$scratch/fio)"
remove
serve add --image $scratch/image --overlay $scratch/overlay
cmp --bytes=9M --ignore-initial=1M:0 "$device" /dev/zero
remove
rm $scratch/image $scratch/overlay $scratch/fio
