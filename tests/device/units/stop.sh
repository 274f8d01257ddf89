# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
systemctl stop lab.target
for unit in lab-a lab-b lab-a-backend lab-pool; do
    until_it_is is $unit.service inactive
done
[[ ! -e $runtime/lab ]] || fail "left: $(find "$runtime")"
[[ -e $lab/pool && -d $XDG_RUNTIME_DIR/vhost-famfs-logs/lab ]] || fail "not kept: $(find "$lab")"
famfs --pool $lab/pool fsck >/dev/null
# Some end meanwhile.
processes=$(cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n') || true
for program in "$lab/qemu" "$programs/vhost-famfs"; do
    [[ $processes != *"$program"* ]] || fail "left: $processes"
done
