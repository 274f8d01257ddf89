# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
root=$(findmnt --noheadings --output SOURCE /)
refused "no /dev/ublk-control" vhost-famfs ublk add --image "$root" --overlay "$scratch/overlay"
refused "no /dev/ublk-control" vhost-famfs ublk list
[[ ! -e $scratch/overlay ]] || fail "an overlay was made"
insmod /run/tests/ublk_drv.ko
[[ $(vhost-famfs ublk list --json) == '{"version":1,"devices":[]}' ]]
