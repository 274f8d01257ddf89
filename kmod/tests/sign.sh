#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Signs the module with a key made for that, installs it, and looks at what was installed.
#
# usage: sign.sh SOURCE KERNEL_HEADERS WORK
set -euo pipefail

fail() {
    echo "$*" >&2
    exit 1
}

source=$1 headers=$2 work=$3
release=$(<"$headers/include/config/kernel.release")
make() {
    command make -C "$source" OUT="$work/out" KDIR="$headers" CC=gcc-14 "$@" >"$work/log" 2>&1
}

openssl req -new -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=famfs signing test/' \
    -keyout "$work/key.pem" -out "$work/cert.pem" 2>"$work/log" || fail "openssl: $(<"$work/log")"

if make sign CERT="$work/cert.pem"; then fail 'make sign works without KEY'; fi
grep -q 'KEY=FILE is missing' "$work/log" || fail "make sign without KEY says: $(tail "$work/log")"
make sign KEY="$work/key.pem" CERT="$work/cert.pem" || fail "make sign: $(tail "$work/log")"
make install INSTALL_MOD_PATH="$work/staging" || fail "make install: $(tail "$work/log")"

module=$(find "$work/staging/lib/modules/$release" -name 'famfs.ko*')
[[ $module ]] || fail "make install installs nothing: $(tail "$work/log")"
signer=$(modinfo -F signer "$module")
[[ $signer == 'famfs signing test' ]] || fail "the signer of $module is '$signer'"
