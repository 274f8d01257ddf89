# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
find /sys/class/ublk-char /run/vhost-famfs-ublk /run/ublksrvd -mindepth 1
find $scratch -mindepth 1 ! -name 'out.*' ! -name 'err.*' ! -name mnt
for process in /proc/[0-9]*; do
    program=$(readlink "$process/exe") || continue
    [[ $program != /run/tests/* ]] || echo "process ${process#/proc/}"
done
