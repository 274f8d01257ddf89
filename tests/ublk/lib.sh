# SPDX-License-Identifier: Apache-2.0 OR MIT
# Shared by the scripts of the ublk suite, which run in the guest.
# shellcheck shell=bash
set -euo pipefail
PATH=/run/tests/bin:$PATH
scratch=/run/scratch
# The appliance has no /var/tmp.
export TMPDIR=$scratch

fail() {
    echo "$*" >&2
    exit 1
}

# Removes what a failed script has left, before the next script.
clean_up() {
    [[ $1 == 0 ]] && return
    set +e
    local node
    umount $scratch/mnt $scratch/small 2>/dev/null
    for node in /sys/class/ublk-char/ublkc*; do
        [[ -e $node ]] || continue
        kill -KILL "${server:-}" 2>/dev/null
        vhost-famfs ublk del --force "${node##*/ublkc}"
    done
    rm -rf ${scratch:?}/* /run/vhost-famfs-ublk/*
} >&2
trap 'clean_up $?' EXIT

# serve COMMAND ARGUMENT...: starts `vhost-famfs ublk COMMAND ...` and waits until its device is
# ready. Sets device and server.
serve() {
    local out=$scratch/out.$1 err=$scratch/err.$1
    : >"$out"
    setsid vhost-famfs ublk "$@" >"$out" 2>"$err" </dev/null &
    server=$!
    local _
    for _ in {1..1200}; do
        device=$(<"$out")
        if [[ $device ]]; then
            return
        fi
        kill -0 "$server" 2>/dev/null || fail "ublk $*: ended: $(<"$err")"
        sleep 0.1
    done
    fail "ublk $*: no device in 120 s: $(<"$err")"
}

# remove: removes the device; the server must end successfully.
remove() {
    vhost-famfs ublk del "$device" >/dev/null
    wait "$server" || fail "the server of $device exits with $?: $(tail -n 5 "$scratch"/err.*)"
    [[ ! -e /dev/ublkc${device#/dev/ublkb} ]] || fail "$device is still there"
}

# refused TEXT COMMAND...: runs a command that must fail with exit code 1 and TEXT in its message.
refused() {
    local text=$1 message status=0
    shift
    message=$("$@" 2>&1 >/dev/null) || status=$?
    [[ $status == 1 ]] || fail "$*: exit code $status: $message"
    [[ $message == *"$text"* ]] || fail "$*: '$text' is not in: $message"
}

# until_it_is COMMAND...: waits until a command succeeds.
until_it_is() {
    local _
    for _ in {1..1200}; do
        if "$@"; then
            return
        fi
        sleep 0.1
    done
    fail "not within 120 s: $*"
}

digest() {
    sha256sum "$1" | cut -d ' ' -f 1
}
