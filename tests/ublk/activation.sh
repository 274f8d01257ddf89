# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
units=/run/systemd/system
mkdir -p $units
for kind in service socket; do
    # The appliance has none of the targets that units depend on by default.
    sed -e '/^\[Unit\]/a DefaultDependencies=no' -e 's,/usr/bin/,/run/tests/bin/,' -e "s,/etc/vhost-famfs/ublk,$scratch," \
        "/run/tests/vhost-famfs-ublk@.$kind" >"$units/vhost-famfs-ublk@.$kind"
done
truncate --size 16M $scratch/image
echo "OPTIONS=--image $scratch/image --overlay $scratch/overlay" >$scratch/vm1.conf
systemctl daemon-reload
systemctl start vhost-famfs-ublk@vm1.socket
[[ $(vhost-famfs ublk list --json) == '{"version":1,"devices":[]}' ]] || fail "a device before it was asked for"
logger --socket /run/vhost-famfs/ublk-vm1.sock question
until_it_is systemctl is-active --quiet vhost-famfs-ublk@vm1.service
device=/dev/ublkb0
[[ -b $device ]] || fail "no $device: $(systemctl status --no-pager vhost-famfs-ublk@vm1.service)"
dd if=/dev/zero of=$device bs=1M count=1 oflag=direct status=none
systemctl stop vhost-famfs-ublk@vm1.socket vhost-famfs-ublk@vm1.service
[[ $(systemctl show --property=Result vhost-famfs-ublk@vm1.service) == Result=success ]]
[[ ! -e $device ]] || fail "$device outlives its service"
rm $units/vhost-famfs-ublk@.* $scratch/image $scratch/overlay $scratch/vm1.conf
