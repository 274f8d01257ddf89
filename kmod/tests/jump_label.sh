#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The switch of the fault counters is a jump label: while they are off, the fault path has a
# no-op there, and no load, compare or call.
#
# usage: jump_label.sh SOURCE KERNEL_HEADERS WORK
set -euo pipefail

source=$1 headers=$2 work=$3
make -C "$source" OUT="$work" KDIR="$headers" CC=gcc-14 >"$work/log" 2>&1 ||
    { tail "$work/log" >&2; exit 1; }

# Everything that file.c knows of the counters, by section
references=$(readelf --relocs --wide "$work/file.o" |
    awk '/^Relocation section/ { section = $3 }
         /famfs_count_faults/ { print section }')
[[ $references ]] || { echo 'file.o does not look at the counters' >&2; exit 1; }
if grep -v '__jump_table' <<<"$references" >&2; then
    echo 'file.o reads the switch of the counters by other means than a jump label' >&2
    exit 1
fi
