#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Installs vhost-famfs on a system without its packages.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
lists=var/lib/vhost-famfs/installed
default="vhost-famfs famfs-tools vhost-famfs-image"

usage() {
    cat <<TEXT
Usage: ./install.sh [--root DIR] [PACKAGE...]
       ./install.sh [--root DIR] --remove [PACKAGE...]

Copies packages to /, or below DIR, and notes what was copied in /$lists. No file
is replaced that this script did not install.

Packages: $(cd "$here/packages" && echo *)
Default:  $default
TEXT
}

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

# What was noted of a package is removed, and the directories that are empty then.
remove() {
    [ -f "$root/$lists/$1" ] || return 0
    while IFS= read -r path; do
        rm -f "$root/$path"
    done <"$root/$lists/$1"
    sed 's,/[^/]*$,,' "$root/$lists/$1" | sort -ru | while IFS= read -r dir; do
        while [ "$dir" != "${dir%/*}" ] && rmdir "$root/$dir" 2>/dev/null; do
            dir=${dir%/*}
        done
    done
    rm "$root/$lists/$1"
}

# Every obstacle is found before the first file is copied.
check() {
    (cd "$here/packages/$1" && find . ! -type d | cut -c 3-) | while IFS= read -r path; do
        [ -e "$root/$path" ] || [ -L "$root/$path" ] || continue
        [ -f "$root/$lists/$1" ] && grep -qxF "$path" "$root/$lists/$1" && continue
        fail "$root/$path exists, and this script did not install it: move it away first"
    done
}

copy() {
    new=$root/$lists/$1.new
    (cd "$here/packages/$1" && find . ! -type d | cut -c 3- | LC_ALL=C sort) >"$new"
    remove "$1"
    mv "$new" "$root/$lists/$1"
    (cd "$here/packages/$1" && tar -cf - .) | (cd "$root/" && tar -xf - --no-same-owner --keep-directory-symlink)
}

root=
action=install
while [ $# -gt 0 ]; do
    case "$1" in
    --root)
        [ $# -gt 1 ] || fail "--root needs a directory"
        root=$(cd "$2" && pwd) || fail "$2: no such directory"
        [ "$root" != / ] || root=
        shift
        ;;
    --remove) action=remove ;;
    -h | --help) usage && exit ;;
    -*) fail "unknown option $1, see --help" ;;
    *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || set -- $default
for package; do
    [ -d "$here/packages/$package" ] || fail "no package $package, see --help"
done
[ -w "$root/" ] || fail "cannot write to $root/: run this as root"

if [ $action = remove ]; then
    for package; do
        remove "$package"
        echo "removed $package"
    done
    (cd "$root/" && rmdir -p $lists 2>/dev/null) || true
    exit
fi
for package; do
    check "$package"
done
mkdir -p "$root/$lists"
for package; do
    copy "$package"
    echo "installed $package"
    case "$package" in
    famfs-dkms) (cd "$here/packages/famfs-dkms/usr/src" && echo "next: dkms install" famfs-* | sed 's,famfs-,famfs/,') ;;
    vhost-famfs) echo "next: vhost-famfs doctor" ;;
    esac
done
