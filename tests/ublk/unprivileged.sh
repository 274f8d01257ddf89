# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
as_user() {
    setpriv --reuid 1234 --regid 1234 --clear-groups "$@"
}
mkdir $scratch/user
truncate --size 16M $scratch/user/image
chown -R 1234:1234 $scratch/user
export XDG_RUNTIME_DIR=$scratch/user
refused "no permission" as_user vhost-famfs ublk list
# What the udev rules of docs/using/block-devices.md do; this guest runs no udev.
chown 1234:1234 /dev/ublk-control
while sleep 0.02; do
    chown 1234:1234 /dev/ublk[bc][0-9]* 2>/dev/null || true
done &
rules=$!
trap 'status=$?; kill $rules; chown 0:0 /dev/ublk-control; clean_up $status' EXIT
has_answered() {
    kill -0 $server 2>/dev/null || fail "$(<$scratch/err.user)"
    [[ -s $scratch/out.user ]]
}
is_the_users() {
    [[ $(stat --format=%u "$device") == 1234 ]]
}
serve_user() {
    : >$scratch/out.user
    setsid setpriv --reuid 1234 --regid 1234 --clear-groups /run/tests/bin/vhost-famfs ublk add \
        --image $scratch/user/image --overlay $scratch/user/overlay >$scratch/out.user 2>$scratch/err.user </dev/null &
    server=$!
    until_it_is has_answered
    device=$(<$scratch/out.user)
    # The rule above must see the block device.
    until_it_is is_the_users
}
serve_user
as_user dd if=/dev/zero of="$device" bs=1M count=1 oflag=direct status=none
[[ $(as_user vhost-famfs ublk list) == *"changes in $scratch/user/overlay"* ]]
kill -KILL $server
as_user vhost-famfs ublk del "$device" >/dev/null
wait $server || true
serve_user
as_user vhost-famfs ublk del "$device" >/dev/null
wait $server || fail "exit code $?: $(<$scratch/err.user)"
rm -r $scratch/user
