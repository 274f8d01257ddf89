# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
root=$(findmnt --noheadings --output SOURCE /)
refused "no /dev/ublk-control" vhost-famfs ublk add --image "$root" --overlay "$scratch/overlay"
[[ $(vhost-famfs ublk list) == 'no devices: the ublk driver is not loaded' ]]
[[ $(vhost-famfs ublk list --json) == '{"version":1,"devices":[]}' ]]
refused "no /dev/ublk-control" vhost-famfs ublk del 0
[[ ! -e $scratch/overlay ]] || fail "an overlay was made"
insmod /run/tests/ublk_drv.ko
[[ $(vhost-famfs ublk list --json) == '{"version":1,"devices":[]}' ]]
