# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
# Shared by the scripts that run emitted units in the guest.
set -euo pipefail
lab=/run/lab
programs=/run/programs
export PATH=$programs:$PATH XDG_RUNTIME_DIR=$lab/run
runtime=$XDG_RUNTIME_DIR/vhost-famfs

fail() {
    echo "$*" >&2
    systemctl status --no-pager --lines=0 'lab*' >&2 || true
    dmesg | tail -n 30 >&2
    exit 1
}

until_it_is() {
    local _
    for _ in {1..600}; do
        if "$@"; then
            return
        fi
        sleep 0.1
    done
    fail "not within 60 s: $*"
}

property() {
    systemctl show --property "$2" --value "$1"
}

is() {
    [[ $(property "$1" ActiveState) == "$2" ]]
}
