#!/bin/bash
# SPDX-License-Identifier: Apache-2.0 OR MIT
# Builds the appliance image: mkosi for the root tree, then what a VM boots from it.
set -euo pipefail

usage() {
    cat <<'HELP'
Build the appliance image.

usage: image/build.sh OPTION...

  --output DIR         where vmlinux, vmlinuz, initrd.img, root.erofs, manifest.json and
                       test-modules/ go
  --work DIR           scratch directory on the same file system; emptied first
  --programs DIR       static binaries: famfs, appliance-init, appliance-agent
  --module FILE        famfs.ko; it decides the kernel version
  --without-module KVER
                       no famfs.ko, kernel KVER: an image that cannot mount a pool
  --kernel DIR         take the kernel from DIR and not from a package: DIR/KVER holds vmlinuz
                       and the modules, as in /lib/modules
  --package-cache DIR  where downloaded packages are kept
  --sources FILE       apt sources in deb822 format (default: mkosi's own)
  --help               this text

Runs as root, with mkosi 25, erofs-utils, cpio, xz, zstd, kmod and binutils installed.
Prints the path and size of each file it made, one a line.
HELP
}

fail() {
    echo "image/build.sh: $*" >&2
    exit 1
}

output='' work='' programs='' module='' kver='' kernel='' cache='' sources=''
while (($#)); do
    case $1 in
        --help) usage; exit 0 ;;
        --output | --work | --programs | --module | --without-module | --kernel | --package-cache | --sources)
            (($# >= 2)) || fail "$1 needs a value"
            ;;&
        --output) output=$2 ;;
        --work) work=$2 ;;
        --programs) programs=$2 ;;
        --module) module=$2 ;;
        --without-module) kver=$2 ;;
        --kernel) kernel=$2 ;;
        --package-cache) cache=$2 ;;
        --sources) sources=$2 ;;
        *) fail "unknown option $1; see --help" ;;
    esac
    shift 2
done
for option in output work programs cache; do
    [[ ${!option} ]] || fail "--${option/cache/package-cache} is missing; see --help"
done
[[ $module || $kver ]] || fail "give --module FILE or --without-module KVER"
[[ ! $module || ! $kver ]] || fail "--module and --without-module exclude each other"

((EUID == 0)) || fail "runs as root only: mkosi unpacks packages with their owners"
for program in mkosi mkfs.erofs cpio xz zstd modprobe depmod modinfo strip; do
    command -v "$program" >/dev/null || fail "no program $program; in a checkout, run: cargo xtask image"
done

source_dir=$(realpath "$(dirname "$0")/..")

# Everything that is added to what the packages bring.
extra_tree() {
    local tree=$work/extra program
    install -d "$tree/usr/bin"
    for program in famfs appliance-agent; do
        [[ -x $programs/$program ]] || fail "no program $programs/$program"
        install -s -m 755 "$programs/$program" "$tree/usr/bin/"
    done
    install -d "$tree/usr/sbin"
    # What mount(8), umount(8), fsck(8) and mkfs(8) look for.
    for program in mkfs fsck mount umount; do
        ln -s ../bin/famfs "$tree/usr/sbin/$program.famfs"
    done
    [[ -x $programs/appliance-init ]] || fail "no program $programs/appliance-init"
    if [[ $module ]]; then
        kver=$(modinfo -F vermagic "$module" | cut -d ' ' -f 1)
        [[ $kver ]] || fail "$module is no kernel module: it names no kernel version"
    fi
    if [[ $kernel ]]; then
        [[ -e $kernel/$kver/vmlinuz ]] || fail "no kernel $kernel/$kver/vmlinuz"
        install -d "$tree/usr/lib/modules"
        cp --recursive "$kernel/$kver" "$tree/usr/lib/modules/"
    fi
    if [[ $module ]]; then
        install -D -m 644 "$module" "$tree/usr/lib/modules/$kver/extra/famfs.ko"
    fi
}

root_tree() {
    local options=()
    if [[ $sources ]]; then
        install -D -m 644 "$sources" "$work/sandbox/etc/apt/sources.list.d/mkosi.sources"
        options+=(--sandbox-tree "$work/sandbox")
    fi
    if [[ ! $kernel ]]; then
        readarray -t -O "${#options[@]}" options < <(kernel_packages)
    fi
    mkdir -p "$cache" "$work/mkosi" "$work/workspace"
    mkosi --directory "$source_dir" "${options[@]}" \
        --extra-tree "$work/extra" \
        --package-cache-directory "$cache" --workspace-directory "$work/workspace" \
        --output-directory "$work/mkosi" --force build >"$work/mkosi.log" 2>&1 ||
        fail "mkosi failed; the last lines of $work/mkosi.log:"$'\n'"$(tail -n 20 "$work/mkosi.log")"
}

# The packages with kernel and modules: Debian has had them in one, with an initramfs generator in tow, before Linux 7.
kernel_packages() {
    case $kver in
        6.*) echo "--package=linux-image-$kver" ;;
        *) printf '%s\n' "--package=linux-modules-$kver" "--package=linux-binary-$kver" ;;
    esac
}

# number SIZE OFFSET FILE: a little-endian unsigned number.
number() {
    od --address-radix=n --endian=little --format="u$1" --skip-bytes="$2" --read-bytes="$1" "$3" |
        tr -d ' '
}

# The ELF kernel inside a bzImage: QEMU enters it directly (PVH), without firmware and decompression.
# Offsets are those of the kernel's Documentation/arch/x86/boot.rst.
extract_vmlinux() {
    local sectors start length size
    [[ $(dd if="$1" iflag=skip_bytes,count_bytes skip=$((0x202)) count=4 status=none) == HdrS ]] ||
        fail "$1 is no bzImage"
    sectors=$(number 1 $((0x1f1)) "$1")
    start=$(((sectors + 1) * 512 + $(number 4 $((0x248)) "$1")))
    # The payload ends with the size that it has when it is decompressed.
    length=$(($(number 4 $((0x24c)) "$1") - 4))
    size=$(number 4 $((start + length)) "$1")
    dd if="$1" iflag=skip_bytes,count_bytes skip=$start count=$length bs=1M status=none |
        zstd --decompress --stdout --quiet >"$2" || fail "$1: its kernel is not compressed with zstd"
    [[ $(stat --format=%s "$2") == "$size" ]] || fail "$1: its kernel is not of $size bytes"
}

initrd() {
    local tree=$work/initrd root=$work/mkosi/root name path
    install -d "$tree/modules"
    install -s -m 755 "$programs/appliance-init" "$tree/init"
    grep -v '^#' "$source_dir/image/modules.initrd" | while read -r name; do
        modprobe --dirname "$root" --set-version "$kver" --show-depends "$name" ||
            fail "the kernel has no module $name"
    done | sed -n 's/^insmod //p' | while read -r path; do
        name=$(basename "$path")
        [[ -e $tree/modules/$name ]] && continue
        install -m 644 "$path" "$tree/modules/"
        echo "$name" >>"$tree/modules/order"
    done
    find "$tree" -exec touch --no-dereference --date "@$epoch" {} +
    (cd "$tree" && find . | LC_ALL=C sort |
        cpio --create --format=newc --owner=0:0 --reproducible --quiet) |
        zstd -19 --quiet --stdout >"$work/out/initrd.img"
}

epoch=$(sed -n 's/^SourceDateEpoch=//p' "$source_dir/mkosi.conf")
mkdir -p "$work" "$output"
# A mistyped --work must not cost anyone a directory.
[[ -e $work/.image-work || -z $(ls --almost-all "$work") ]] ||
    fail "--work $work is not empty and no scratch directory of an earlier build; remove it or name another"
find "$work" -mindepth 1 -delete
touch "$work/.image-work"
mkdir "$work/out"
extra_tree
root_tree
cp "$work/mkosi/vmlinuz" "$work/out/vmlinuz"
cp "$work/mkosi/root.manifest" "$work/out/manifest.json"
cp -r "$work/mkosi/test-modules" "$work/out/"
if [[ $kernel ]]; then
    # Code that KASAN checks cannot run as early as PVH enters a kernel. The firmware starts a bzImage as well.
    cp "$work/out/vmlinuz" "$work/out/vmlinux"
else
    extract_vmlinux "$work/out/vmlinuz" "$work/out/vmlinux"
fi
initrd
# The UUID is fixed for the same reason as the times: same input, same bytes.
mkfs.erofs -z lz4hc,12 -C 65536 -T "$epoch" -U 4d57e2a6-5f2c-4f5e-9b0e-6b1f7d3a9c10 \
    --all-root --quiet "$work/out/root.erofs" "$work/mkosi/root" >"$work/mkfs.log" 2>&1 ||
    fail "mkfs.erofs failed: $(tail -n 5 "$work/mkfs.log")"
# All or nothing: an image is never half old and half new for longer than these renames.
rm -rf "$output/test-modules"
mv "$work"/out/* "$output/"
find "$output" -maxdepth 1 -type f -printf '%p %s\n' | sort
