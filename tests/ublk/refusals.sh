# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
truncate --size 1M $scratch/image
add=(vhost-famfs ublk add)
overlay=(--overlay $scratch/overlay)
refused "no such file" "${add[@]}" --image $scratch/none "${overlay[@]}"
refused "no device 9" vhost-famfs ublk del 9
refused "no device 9" vhost-famfs ublk recover 9
[[ ! -e $scratch/overlay ]] || fail "an overlay was made"

serve add --image $scratch/image "${overlay[@]}" --id 5
[[ $device == /dev/ublkb5 ]]
refused "overlay $scratch/overlay: busy" "${add[@]}" --image $scratch/image "${overlay[@]}"
refused "device 5 exists already" "${add[@]}" --image $scratch/image --overlay $scratch/second --id 5
[[ ! -e $scratch/second ]] || fail "the overlay of a device that was not made"
refused "needs no recovery: it is live" vhost-famfs ublk recover 5
# A device of another program, which has no record.
mv /run/vhost-famfs-ublk/5.json $scratch/record
refused "device 5 exists already" "${add[@]}" --image $scratch/image --ephemeral --id 5
refused "was created by another program or user" vhost-famfs ublk del --force 5
refused "was created by another program or user" vhost-famfs ublk recover 5
mv $scratch/record /run/vhost-famfs-ublk/5.json
printf x | dd of="$device" bs=512 conv=notrunc,fsync status=none
remove

# Several commands want the same number and the same new overlay: one gets and keeps them.
rm $scratch/overlay
for wish in {1..4}; do
    setsid "${add[@]}" --image $scratch/image "${overlay[@]}" --id 6 >$scratch/out.$wish 2>&1 </dev/null &
done
all_have_answered() {
    for wish in {1..4}; do
        [[ $(wc -l <$scratch/out.$wish) -gt 0 ]] || return 1
    done
}
until_it_is all_have_answered
for wish in {1..4}; do
    grep -q 'exists already\|: busy: \|^/dev/ublkb6$' $scratch/out.$wish ||
        fail "another answer: $(<$scratch/out.$wish)"
done
[[ $(cat $scratch/out.[1-4] | grep -c '^/dev/ublkb6$') == 1 ]] || fail "$(cat $scratch/out.[1-4])"
[[ -e $scratch/overlay ]] || fail "the overlay of device 6 was removed"
printf x | dd of=/dev/ublkb6 bs=512 conv=notrunc,fsync status=none
vhost-famfs ublk del 6 >/dev/null
wait

# Another image, a longer one, a shorter one.
printf x | dd of=$scratch/image bs=1 seek=700000 conv=notrunc status=none
refused "belongs to another base: to one with SHA-256" "${add[@]}" --image $scratch/image "${overlay[@]}"
truncate --size 2M $scratch/image
refused "to one of 1 MiB, the image has 2 MiB" "${add[@]}" --image $scratch/image "${overlay[@]}"
truncate --size 512K $scratch/image
refused "to one of 1 MiB, the image has 512 KiB" "${add[@]}" --image $scratch/image "${overlay[@]}"
truncate --size 1000 $scratch/image
refused "not a multiple of 512" "${add[@]}" --image $scratch/image --ephemeral

# An image that is truncated below a device: errors where data is missing, and nowhere else.
truncate --size 0 $scratch/image
truncate --size 1M $scratch/image
serve add --image $scratch/image --read-only
truncate --size 512K $scratch/image
dd if="$device" of=/dev/null bs=64k count=8 iflag=direct status=none
refused "Input/output error" dd if="$device" of=/dev/null bs=64k skip=8 count=1 iflag=direct status=none
remove

# A mounted device is removed only with --force.
truncate --size 16M $scratch/image
serve add --image $scratch/image --ephemeral
mkfs.ext4 -q -F "$device" 2>/dev/null
mkdir -p $scratch/mnt
mount -t ext4 "$device" $scratch/mnt
refused "is in use" vhost-famfs ublk del "$device"
umount $scratch/mnt
remove

# The server of an ephemeral device is killed: it cannot be recovered, but it can be removed.
serve add --image $scratch/image --ephemeral
kill -KILL "$server"
wait "$server" || true
refused "cannot be recovered" vhost-famfs ublk recover "$device"
vhost-famfs ublk del "$device" >/dev/null
# The kernel takes a moment to notice that a server has ended.
for _ in {1..5}; do
    serve add --image $scratch/image --ephemeral
    kill -KILL "$server"
    vhost-famfs ublk del "$device" >/dev/null
    wait "$server" || true
    [[ ! -e /sys/class/ublk-char/ublkc${device#/dev/ublkb} ]] || fail "$device is still there"
done

# The image of a device no longer exists when the device must be recovered.
rm $scratch/overlay
serve add --image $scratch/image "${overlay[@]}"
kill -KILL "$server"
wait "$server" || true
mv $scratch/overlay $scratch/away
refused "its overlay no longer exists" vhost-famfs ublk recover "$device"
[[ ! -e $scratch/overlay ]] || fail "an overlay was made to recover a device"
"${add[@]}" --image $scratch/image "${overlay[@]}" >$scratch/out.other 2>&1 </dev/null &
other=$!
until_it_is test -s $scratch/out.other
vhost-famfs ublk del "$(<$scratch/out.other)" >/dev/null
wait $other
refused "another overlay has the name of its overlay" vhost-famfs ublk recover "$device"
mv $scratch/away $scratch/overlay
serve recover "$device"
remove
serve add --image $scratch/image --read-only
kill -KILL "$server"
wait "$server" || true
truncate --size 8M $scratch/image
refused "has 16 MiB, but its image or pool now has 8 MiB" vhost-famfs ublk recover "$device"
truncate --size 16M $scratch/image
serve recover "$device"
kill -KILL "$server"
serve recover "$device"
remove

# SIGTERM ends the server in order.
serve add --image $scratch/image --ephemeral
kill "$server"
wait "$server" || fail "exit code $? after SIGTERM"
[[ ! -e $device ]]
rm $scratch/image $scratch/overlay
