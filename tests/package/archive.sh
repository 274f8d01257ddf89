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
mkdir -p dest/usr/bin
echo mine >dest/usr/bin/mine
before=$(find dest | sort)

"$install" --root dest
[[ $(dest/usr/bin/vhost-famfs --version) == "vhost-famfs "* ]]
[[ $(readlink dest/usr/libexec/vhost-user-famfs) == ../bin/vhost-famfs ]]
(cd dest/usr/share/vhost-famfs/image && sha256sum --check --quiet --strict SHA256SUMS)
# The image is found below the prefix of the program.
found=$(dest/usr/bin/vhost-famfs doctor || true)
[[ $found == *"$PWD/dest/usr/share/vhost-famfs/image, with root"* ]] || fail "$found"
# Once more, as an update does.
"$install" --root dest vhost-famfs
"$install" --root dest --remove
[[ $(find dest | sort) == "$before" ]] || fail "left: $(find dest)"

# What somebody else installed is not replaced.
echo other >dest/usr/bin/famfs
said=$("$install" --root dest famfs-tools 2>&1) && fail "it replaced a file: $said"
[[ $said == *"/usr/bin/famfs exists, and this script did not install it"* ]] || fail "$said"
[[ $(cat dest/usr/bin/famfs) == other && ! -e dest/usr/sbin && ! -e dest/var ]]
