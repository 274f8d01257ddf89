# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
# Kills the server $kills times, while fio writes and reads back. Everything that the server had
# answered before it was killed must be there, flushed or not, because the system keeps running.
truncate --size 64M $scratch/image
serve add --image $scratch/image --overlay $scratch/overlay
write_and_verify() {
    fio --name=kills --filename="$device" --direct=1 --ioengine=io_uring --iodepth=8 --rw=randwrite --bs=4k \
        --size=32M --fsync=16 --verify=crc32c --verify_fatal=1 --verify_backlog=512 --time_based \
        --runtime=$((kills * 4 + 4)) --output=$scratch/fio >/dev/null &
    fio=$!
}
write_and_verify
is_waiting() {
    [[ $(vhost-famfs ublk list) == *" waiting "* ]]
}
RANDOM=$kills
for ((kill = 1; kill <= kills; kill++)); do
    sleep $((RANDOM % 2)).$((RANDOM % 1000))
    if ! kill -0 $fio 2>/dev/null; then
        # On a busy host, its time ends before the kills do.
        wait $fio || fail "fio: $(<$scratch/fio)"
        write_and_verify
        sleep 1
        kill -0 $fio || fail "fio has ended: $(<$scratch/fio)"
    fi
    kill -KILL "$server"
    wait "$server" || true
    until_it_is is_waiting
    serve recover "$device"
done
wait $fio || fail "fio: $(<$scratch/fio)"
grep -E ' (read|write): IOPS' $scratch/fio | tr -s ' '
# All of it is in the overlay, also for a new device: verified against a copy.
digest=$(digest "$device")
remove
serve add --image $scratch/image --overlay $scratch/overlay
[[ $(digest "$device") == "$digest" ]] || fail "the new device has other contents"
remove
rm $scratch/image $scratch/overlay $scratch/fio
echo "$kills kills and recoveries"
