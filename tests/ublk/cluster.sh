# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
# Root devices of a cluster, with a script in place of QEMU, because a VM in an emulated one takes
# very long: it writes to its disk, and ends or stays.
# The program finds itself only if it is run without a loader in between.
program=/run/tests/tools/vhost-famfs
export XDG_RUNTIME_DIR=$scratch/run VHOST_FAMFS_QEMU=$scratch/qemu scratch
mkdir -p $XDG_RUNTIME_DIR
cat >$scratch/qemu <<'END'
#!/bin/bash
case "$*" in
    *-version*) echo "QEMU emulator version 11.1.3"; exit ;;
    *isa-debug-exit*) exit 85 ;;
esac
line=$*
device=${line##*file.filename=}
device=${device%% *}
printf kept | dd of="$device" bs=4096 seek=1 conv=fsync status=none || exit
echo "$device" >>$scratch/devices
[[ ! -e $scratch/stay ]] || exec sleep 600
echo "written: $device" >&2
exit 1
END
chmod +x $scratch/qemu
truncate --size 16M $scratch/image
printf '\x55\xaa' | dd of=$scratch/image bs=1 seek=510 conv=notrunc status=none
before=$(digest $scratch/image)
cat >$scratch/lab.toml <<END
[pool]
size = "16M"
[[vm]]
name = "kept"
image = "image"
root = "ublk"
overlay = "overlay"
[[vm]]
name = "lost"
image = "image"
root = "ublk"
END
no_device() {
    [[ $(vhost-famfs ublk list --json) == '{"version":1,"devices":[]}' ]]
}
overlay_is_kept() {
    serve add --image $scratch/image --overlay $scratch/overlay --read-only
    [[ $(dd if="$device" bs=4096 skip=1 count=1 status=none | tr -d '\0') == kept ]] || fail "the overlay lost a write"
    remove
}
up=("$program" up $scratch/lab.toml --overcommit --timeout 60)

# A start that fails removes the devices, and keeps what was written.
refused "written: /dev/ublkb" "${up[@]}"
no_device || fail "after a start that failed: $(vhost-famfs ublk list)"
grep -qx /dev/ublkb0 $scratch/devices || fail "$(<$scratch/devices)"
overlay_is_kept

# An overlay has one device at a time.
serve add --image $scratch/image --overlay $scratch/overlay
refused "VM kept: no root device of $scratch/image" "${up[@]}"
remove
no_device || fail "after a start without the overlay: $(vhost-famfs ublk list)"

# If the launcher is killed, and then the processes of the devices, `down` removes what is left.
touch $scratch/stay
rm $scratch/devices
"${up[@]}" >/dev/null 2>&1 &
launcher=$!
both_have_written() {
    [[ -e $scratch/devices && $(wc -l <$scratch/devices) == 2 ]]
}
until_it_is both_have_written
[[ $(vhost-famfs ublk list --json) == *"\"owner\":\"$XDG_RUNTIME_DIR/vhost-famfs/lab/kept.ublk\""* ]]
kill -KILL $launcher
wait $launcher || true
for server in /proc/[0-9]*; do
    if tr '\0' ' ' <"$server/cmdline" | grep -q "ublk add .*--owner $XDG_RUNTIME_DIR/"; then
        kill -KILL "${server#/proc/}"
    fi
done 2>/dev/null
overlay_waits() {
    [[ $(vhost-famfs ublk list) == *" waiting "* ]]
}
until_it_is overlay_waits
"$program" down lab --timeout 1 >/dev/null
no_device || fail "after down: $(vhost-famfs ublk list)"
[[ ! -e $XDG_RUNTIME_DIR/vhost-famfs ]] || fail "$(find $XDG_RUNTIME_DIR)"
overlay_is_kept
[[ $(digest $scratch/image) == "$before" ]] || fail "the image was changed"
rm -r $XDG_RUNTIME_DIR $scratch/qemu $scratch/image $scratch/lab.toml $scratch/overlay $scratch/devices $scratch/stay
