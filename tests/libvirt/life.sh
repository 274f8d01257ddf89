#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# The life of emitted domains under libvirt, for a user without privileges: a writer with a
# back-end, and a reader whose QEMU maps the pool. Runs as root in a system of its own, with the
# programs and the image in /mnt. For each thing that works it prints a line "ok: WHAT".
set -euo pipefail

# How long a guest may take to boot or to shut down on a busy host, in seconds.
LIMIT=240

if [[ $(id -u) == 0 ]]; then
    useradd --create-home --uid 1000 user
    install -d -o user -g user -m 700 /run/user /run/user/1000
    export HOME=/home/user XDG_RUNTIME_DIR=/run/user/1000 LIBVIRT_DEFAULT_URI=qemu:///session
    cd "$HOME"
    # More than all steps that wait. As process 1, this shell takes the end of QEMU, which libvirt
    # starts in the background.
    timeout --kill-after=30 $((8 * LIMIT)) \
        setpriv --reuid user --regid user --clear-groups bash "$0"
    exit
fi

VMS=(writer reader)
why="the script ended early"

ok() {
    echo "ok: $*"
}

fail() {
    why=$*
    exit 1
}

# What the programs logged, and last the reason.
ended() {
    (($1 != 0)) || return 0
    local logs=("$XDG_RUNTIME_DIR"/vhost-famfs/lab/*.{console,log} .cache/libvirt/qemu/log/*.log)
    tail -n 40 "${logs[@]}" >&2 || true
    echo "$why" >&2
}
set -o errtrace
trap 'why="line $LINENO failed: $BASH_COMMAND"' ERR
trap 'fail "not within the time for all: $BASH_COMMAND"' TERM
trap 'ended $?' EXIT

# within WHAT COMMAND...: until the command succeeds.
within() {
    local what=$1 end=$((SECONDS + LIMIT))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || fail "not within $LIMIT s: $what"
        sleep 0.2
    done
}

is_off() {
    [[ $(virsh domstate "lab-$1") == "shut off" ]]
}

# A press of the power button is lost while the guest still loads its driver.
shut_down() {
    is_off "$1" && return
    virsh shutdown "lab-$1"
    sleep 2
    is_off "$1"
}

has_mounted() {
    grep -q "on /mnt/famfs: .* 1 files" "$XDG_RUNTIME_DIR/vhost-famfs/lab/$1.console"
}

no_backend() {
    [[ $(pgrep -fc "vhost-famfs device" || true) == 0 ]]
}

mkdir data
echo hello >data/greeting
cat >lab.toml <<END
name = "lab"
[pool]
path = "/dev/shm/pool"
size = "64M"
[[import]]
from = "data"
[[vm]]
name = "writer"
memory = "512M"
[[vm]]
name = "reader"
access = "ro"
memory = "512M"
END
/mnt/vhost-famfs up lab.toml --image /mnt/image --dry-run --emit libvirt --output lab >&2
for vm in "${VMS[@]}"; do
    for file in "lab/lab-$vm.xml" "lab/lab-$vm.emulated.xml"; do
        virt-xml-validate "$file" domain >&2
    done
done
grep -q vhost-user-test-device-pci lab/lab-writer.xml
grep -q virtio-pmem-pci lab/lab-reader.xml
ok "the domains of both transports are of libvirt's schema"

files=$(sh lab/lab-prepare.sh)
kvm=".emulated"
[[ $files == *"$kvm"* ]] || kvm=""
[[ $files == "lab/lab-writer$kvm.xml"$'\n'"lab/lab-reader$kvm.xml" ]] || fail "$files"
# Again, with nothing to do.
[[ $(sh lab/lab-prepare.sh writer) == "lab/lab-writer$kvm.xml" ]]
[[ $(pgrep -fc "vhost-famfs device") == 1 ]]
ok "the script prepares the pool and the back-end once, and names the domains for this host"

for vm in "${VMS[@]}"; do
    # Of any host, so that all run the same.
    virsh define --validate "lab/lab-$vm.emulated.xml" >&2
    virsh start "lab-$vm" >&2
done
for vm in "${VMS[@]}"; do
    within "lab-$vm mounts the pool" has_mounted "$vm"
done
ok "both are defined and started, and their guests mount the pool"

for vm in "${VMS[@]}"; do
    within "lab-$vm shuts down" shut_down "$vm"
done
within "the back-end ends with its VM" no_backend
/mnt/famfs --pool /dev/shm/pool fsck >&2
ok "virsh shutdown powers the guests off, and the back-end ends with its VM"

if virsh start lab-writer >&2; then
    fail "a domain started without its back-end"
fi
sh lab/lab-prepare.sh >&2
for vm in "${VMS[@]}"; do
    virsh start "lab-$vm" >&2
    virsh destroy "lab-$vm" >&2
    is_off "$vm"
    virsh undefine "lab-$vm" >&2
done
within "the back-end ends with its VM" no_backend
[[ -z $(virsh list --all --name) ]]
ok "after the script they start again; virsh destroy ends them and virsh undefine removes them"
