#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Does what DKMS does with dkms.conf: reads it, checks its conditions, builds in a copy, cleans.
#
# usage: dkms.sh SOURCE KERNEL_HEADERS WORK
set -euo pipefail

fail() {
    echo "dkms.conf: $*" >&2
    exit 1
}

source=$1 kernel_source_dir=$2 work=$3
cp -r "$source" "$work/famfs"
cd "$work/famfs"
. ./dkms.conf

release=$(<"$kernel_source_dir/include/config/kernel.release")
[[ $PACKAGE_NAME == famfs && $PACKAGE_VERSION ]] || fail "package $PACKAGE_NAME $PACKAGE_VERSION"
[[ ${DEST_MODULE_LOCATION[0]} == /* ]] || fail "DEST_MODULE_LOCATION ${DEST_MODULE_LOCATION[0]} is not absolute"
[[ $AUTOINSTALL == yes ]] || fail "AUTOINSTALL is $AUTOINSTALL"
for kernel in "$release" 6.12.1-generic 7.2.0 7.2-rc1 7.10.3 8.0.1 10.1.0; do
    [[ $kernel =~ $BUILD_EXCLUSIVE_KERNEL ]] || fail "refuses kernel $kernel"
done
for kernel in 6.1.12 6.11.9 6.13.1 6.19.0 6.120.0 7.0.2 7.1.9 7.1-rc3; do
    [[ ! $kernel =~ $BUILD_EXCLUSIVE_KERNEL ]] || fail "takes kernel $kernel"
done
for option in $BUILD_EXCLUSIVE_CONFIG; do
    grep -q "^$option=[ym]" "$kernel_source_dir/include/config/auto.conf" ||
        fail "wants $option, which $release has not"
done

eval "${MAKE[0]}" >make.log 2>&1 || fail "${MAKE[0]}: $(tail -n 20 make.log)"
module=${BUILT_MODULE_LOCATION[0]:-.}/${BUILT_MODULE_NAME[0]}.ko
[[ $(modinfo -F vermagic "$module") == "$release "* ]] || fail "$module is not for $release"
eval "$CLEAN" >clean.log 2>&1 || fail "$CLEAN: $(tail -n 20 clean.log)"
[[ ! -e $module ]] || fail "$CLEAN leaves $module"
