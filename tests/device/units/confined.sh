# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
pid=$(property lab-a.service MainPID)
status=$(<"/proc/$pid/status")
[[ $status == *$'\nNoNewPrivs:\t1\n'* ]] || fail "new privileges: $status"
# It may become another user, with an option of QEMU, which the stand-in does not know: CAP_SETGID
# and CAP_SETUID.
[[ $status == *$'\nCapBnd:\t00000000000000c0\n'* ]] || fail "capabilities: $status"
[[ $status == *$'\nUmask:\t0077\n'* ]] || fail "umask: $status"
limits=$(grep '^Max core file size' "/proc/$pid/limits")
[[ $limits == *" 0 "*" 0 "* ]] || fail "core files: $limits"
backend=$(property lab-a-backend.service MainPID)
status=$(<"/proc/$backend/status")
[[ $status == *$'\nNoNewPrivs:\t1\n'* && $status == *$'\nSeccomp:\t2\n'* ]] || fail "back-end: $status"
shown=$(vhost-famfs ps --json lab || true)
[[ $shown == *"\"backend_pid\":$backend"* ]] || fail "ps does not know back-end $backend: $shown"
