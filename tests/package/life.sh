#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# The life of the packages in a system, from the first installation to the purge. Runs as root in a
# system of its own, with the packages in /mnt/old and /mnt/new. For each thing that works it prints
# a line "ok: WHAT".
set -euo pipefail

ok() {
    echo "ok: $*"
}

fail() {
    echo "$*" >&2
    exit 1
}

# run COMMAND...: what it prints is for the log.
run() {
    "$@" >&2
}

# All files with owner, mode, size and time, and all directories. Not what apt, dpkg and the manual
# keep about packages, nor the key that DKMS makes once for all modules.
snapshot() {
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp \
        -o -path /mnt -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache \
        -o -path /var/log -o -path '/var/lib/dkms/mok.*' \) -prune \
        -o -type d -printf '%p %m %u:%g\n' \
        -o -printf '%p %y %m %u:%g %s %T@ %l\n' | LC_ALL=C sort
}

# Files of an administrator, which no package may touch.
mkdir -p /etc/vhost-famfs
echo 'POOL=/dev/shm/mine' >/etc/vhost-famfs/mine.conf
ln -s /usr/bin/true /usr/local/bin/famfs-mine
snapshot >/tmp/before

names=(vhost-famfs famfs-tools vhost-famfs-image vhost-famfs-guest)
if [[ -d /usr/share/doc/dkms ]]; then
    names+=(famfs-dkms)
fi
old=(/mnt/new/vhost-famfs-image_*.deb)
new=()
for name in "${names[@]}"; do
    [[ $name == *-image ]] || old+=("/mnt/old/$name"_*.deb)
    new+=("/mnt/new/$name"_*.deb)
done

SECONDS=0
run apt-get install --yes --no-install-recommends "${old[@]}"
installed=$SECONDS
[[ $(dpkg-query -W -f '${db:Status-Abbrev}' vhost-famfs famfs-tools vhost-famfs-image) == "ii ii ii " ]]
ok "an earlier version is installed"

[[ $(vhost-famfs --version) == "vhost-famfs "* && $(famfs --version) == "famfs "* ]]
for page in vhost-famfs vhost-famfs-up famfs famfs-cp; do
    run man --where "$page"
done
run man --where 5 famfs
for helper in mkfs fsck mount umount; do
    run man --where 8 $helper.famfs
done
[[ $(readlink -f /usr/libexec/vhost-user-famfs) == /usr/bin/vhost-famfs ]]
registered=$(sed -n 's/.*"binary": "\(.*\)".*/\1/p' /usr/share/qemu/vhost-user/50-vhost-famfs.json)
[[ $("$registered" --print-capabilities) == *pmem* ]]
ok "programs, manuals and the registered back-end are there"

units=(/usr/lib/systemd/system/{famfs-agent,famfs-attach,famfs-watch}.service)
for kind in vhost-famfs vhost-famfs-ublk; do
    for end in socket service; do
        cp "/usr/lib/systemd/system/$kind@.$end" "/tmp/$kind@vm1.$end"
        units+=("/tmp/$kind@vm1.$end")
    done
done
run systemd-analyze verify "${units[@]}" 2>/tmp/complaints || fail "$(cat /tmp/complaints)"
for unit in "${units[@]}"; do
    said=$(grep -F "${unit##*/}" /tmp/complaints || true)
    [[ -z $said ]] || fail "$said"
done
ok "systemd finds nothing wrong with the units"

(cd /usr/share/vhost-famfs/image && run sha256sum --check --quiet --strict SHA256SUMS)
ok "the image is as its checksums say"

run vhost-famfs doctor
found=$(vhost-famfs doctor)
[[ $found == *"image "*"/usr/share/vhost-famfs/image, with root: memory, disk"* ]] || fail "$found"
[[ $found == *"ok       qemu "*"slices, which need 11.1"* ]] || fail "$found"
ok "doctor finds the image and says what this QEMU cannot do"

run vhost-famfs pool create /dev/shm/pool --size 64M
run mkfs.famfs --pool /dev/shm/pool
run fsck.famfs --pool /dev/shm/pool
run vhost-famfs pool rm /dev/shm/pool --force
ok "famfs makes and checks a pool"

mkdir /tmp/share
echo hello >/tmp/share/greeting
SECONDS=0
run vhost-famfs up --vms 3 --share /tmp/share --timeout 120 >/tmp/up 2>&1 || fail "$(cat /tmp/up)"
started=$SECONDS
grep -q "transport pmem, because this is QEMU" /tmp/up || fail "$(cat /tmp/up)"
[[ $(vhost-famfs exec vm3 -- cat /mnt/famfs/greeting) == hello ]]
echo "# apt-get install: $installed s; up, until 3 VMs have mounted the pool: $started s"
ok "up shares a directory with three VMs, with the transport of this QEMU"

run apt-get install --yes --no-install-recommends "${new[@]}"
[[ $(dpkg-query -W -f '${Version}' vhost-famfs) != 0.0.1-1 ]]
[[ $(vhost-famfs exec vm3 -- cat /mnt/famfs/greeting) == hello ]]
run vhost-famfs ps
run vhost-famfs down
run vhost-famfs up --vms 1 --share /tmp/share --timeout 120
run vhost-famfs down
ok "a running cluster survives the upgrade, and the new version serves it"

if [[ -d /usr/share/doc/dkms ]]; then
    run dkms status
    [[ $(dkms status) == famfs/*": installed"* ]] || fail "$(dkms status)"
    module=$(find /lib/modules -name 'famfs.ko*')
    [[ $(modinfo --field name "$module") == famfs ]]
    ok "DKMS has built the module for the kernel with headers"
    signer=$(modinfo --field signer "$module")
    [[ $signer == *DKMS* && -s /var/lib/dkms/mok.pub ]] || fail "signed by ${signer:-nobody}"
    ok "DKMS has signed it with the key that its user enrols for Secure Boot"
fi

run apt-get remove --yes "${names[@]}"
[[ ! -e /usr/bin/vhost-famfs && ! -e /usr/share/vhost-famfs && ! -e /usr/bin/famfs ]]
ok "removal removes the programs"

run apt-get purge --yes "${names[@]}"
snapshot >/tmp/after
diff /tmp/before /tmp/after >/tmp/changes || fail "left or touched: $(cat /tmp/changes)"
[[ $(cat /etc/vhost-famfs/mine.conf) == POOL=/dev/shm/mine ]]
[[ ! -e /run/vhost-famfs ]] || fail "left: $(find /run/vhost-famfs)"
[[ $(find /dev/shm -mindepth 1 | wc -l) == 0 ]] || fail "left: $(find /dev/shm)"
ok "purge leaves nothing, and the administrator's files as they were"
