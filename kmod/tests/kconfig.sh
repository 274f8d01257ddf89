#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Reads the Kconfig file as a kernel tree would, with and without what it depends on.
#
# usage: kconfig.sh SOURCE KERNEL_HEADERS WORK
set -euo pipefail

source=$1 headers=$2 work=$3
cd "$work"
cat >Kconfig <<KCONFIG
mainmenu "famfs in a kernel tree"
config MODULES
	bool "modules"
	modules
config BLOCK
	bool "block devices"
config FS_DAX
	bool "DAX"
config MEMORY_FAILURE
	bool "memory failures"
config INTERVAL_TREE
	bool
source "$source/Kconfig"
KCONFIG

# expect DEFAULTS NAME=VALUE: these choices result in that line, or in none if VALUE is n.
expect() {
    printf '%s\n' $1 >.config
    "$headers/scripts/kconfig/conf" --olddefconfig Kconfig >log 2>&1 || { cat log >&2; exit 1; }
    # conf prints this line and nothing else when it is content.
    if grep -v -e '^#' log >&2; then exit 1; fi
    if [[ $2 == *=n ]]; then
        if grep "^${2%=n}=" .config >&2; then exit 1; fi
    else
        grep -q "^$2$" .config || { echo "no $2 after $1" >&2; cat .config >&2; exit 1; }
    fi
}

needed='CONFIG_BLOCK=y CONFIG_FS_DAX=y CONFIG_MEMORY_FAILURE=y'
expect "CONFIG_MODULES=y $needed CONFIG_FAMFS=m" CONFIG_FAMFS=m
expect "CONFIG_MODULES=y $needed CONFIG_FAMFS=m" CONFIG_INTERVAL_TREE=y
expect "$needed CONFIG_FAMFS=y" CONFIG_FAMFS=y
expect "CONFIG_MODULES=y $needed" CONFIG_FAMFS=n
for missing in $needed; do
    expect "CONFIG_MODULES=y ${needed/$missing/} CONFIG_FAMFS=m" CONFIG_FAMFS=n
done
