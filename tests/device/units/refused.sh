# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
units=/run/systemd/system
mkdir -p $units $lab/image $lab/run
chmod 700 $lab/run
# The appliance has none of the targets that units depend on by default.
for name in sysinit basic; do
    printf '[Unit]\nDefaultDependencies=no\n' >$units/$name.target
done
touch $lab/image/{vmlinux,initrd.cpio,root.erofs}
cat >$lab/qemu <<'END'
#!/bin/bash
# Says what it finds, and stays.
if [[ " $* " == *" --version "* ]]; then
    echo "QEMU emulator version 11.1.3"
    exit
fi
for word; do
    if [[ $word == socket,id=pool0,path=* ]]; then
        [[ -S ${word##*=} ]] || exit 9
    elif [[ $word == *,logfile=* ]]; then
        echo started >"${word##*=}"
    fi
done
sleep infinity &
trap 'kill $!' EXIT
trap 'exit 0' TERM
wait
END
chmod +x $lab/qemu
cat >$lab/lab.toml <<END
name = "lab"
[pool]
path = "$lab/pool"
size = "64M"
[[vm]]
name = "a"
[[vm]]
name = "b"
access = "ro"
cpu-weight = 7
memory-max = "3G"
cpus-allowed = "0"
END
vhost-famfs up $lab/lab.toml --qemu $lab/qemu --image $lab/image --overcommit --dry-run --emit systemd --output $units
systemctl daemon-reload

truncate --size 64M $lab/pool
chown 1000 $lab/pool
if systemctl start lab-a.service; then
    fail "a VM started on a pool of another user"
fi
is lab-a.service inactive && is lab-a-backend.service inactive || fail "it started nonetheless"
rm $lab/pool
systemctl reset-failed
