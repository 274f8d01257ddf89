#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Stands in for `vhost-famfs ublk add --image FILE (--ephemeral | --overlay FILE) --owner TEXT`,
# with the loop driver and a copy of the image. Whoever names it in VHOST_FAMFS_UBLK needs no ublk
# driver.
set -euo pipefail

image=$4
if [[ $5 == --overlay ]]; then
    disk=$6
    exec {lock}>>"$disk"
    flock --nonblock "$lock" || { echo "overlay $disk: in use by another device" >&2; exit 1; }
    [[ -s $disk ]] || cp --sparse=always "$image" "$disk"
else
    disk=$(mktemp)
    cp --sparse=always "$image" "$disk"
fi
# It may be ended at any moment.
undo() {
    losetup --associated "$disk" --noheadings --output NAME | xargs --no-run-if-empty losetup --detach
}
trap undo EXIT
trap 'exit 143' TERM
device=$(losetup --find --show "$disk")
# From here on, the device lives as long as somebody has it open.
exec {held}<>"$device"
losetup --detach "$device"
trap - TERM EXIT
[[ $5 == --overlay ]] || rm "$disk"
echo "$device"
# Waits for a signal, without a child that would have another command line.
exec {never}<> <(:)
read -r -u "$never"
