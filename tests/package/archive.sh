#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Unpacks the archive, and installs and removes below a directory.
#
# usage: archive.sh ARCHIVE DIR
set -euo pipefail

fail() {
    echo "$*" >&2
    exit 1
}

cd "$2"
tar -xf "$1"
install=$(echo vhost-famfs-*/install.sh)
mkdir -p root/usr/bin
echo mine >root/usr/bin/mine
before=$(find root | sort)

"$install" --root root
[[ $(root/usr/bin/vhost-famfs --version) == "vhost-famfs "* ]]
[[ $(readlink root/usr/libexec/vhost-user-famfs) == ../bin/vhost-famfs ]]
(cd root/usr/share/vhost-famfs/image && sha256sum --check --quiet --strict SHA256SUMS)
# The image is found below the prefix of the program.
found=$(root/usr/bin/vhost-famfs doctor || true)
[[ $found == *"$PWD/root/usr/share/vhost-famfs/image, with root"* ]] || fail "$found"
# Once more, as an update does.
"$install" --root root vhost-famfs
"$install" --root root --remove
[[ $(find root | sort) == "$before" ]] || fail "left: $(find root)"

# What somebody else installed is not replaced.
echo other >root/usr/bin/famfs
said=$("$install" --root root famfs-tools 2>&1) && fail "it replaced a file: $said"
[[ $said == *"/usr/bin/famfs exists, and this script did not install it"* ]] || fail "$said"
[[ $(cat root/usr/bin/famfs) == other && ! -e root/usr/sbin && ! -e root/var ]]
