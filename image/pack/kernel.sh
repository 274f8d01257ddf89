# SPDX-License-Identifier: Apache-2.0 OR MIT
# The kernel and its initrds, for image/pack/forms, which has $tree, $scratch and fail.

# number SIZE OFFSET FILE: a little-endian unsigned number.
number() {
    od --address-radix=n --endian=little --format="u$1" --skip-bytes="$2" --read-bytes="$1" "$3" | tr -d ' '
}

# The ELF kernel inside a bzImage: QEMU enters it directly (PVH), without firmware and
# decompression. Offsets are those of the kernel's Documentation/arch/x86/boot.rst.
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

# install_modules DIR LIST: the modules in LIST with all that they depend on, and in DIR/order which
# file to load when (docs/inside/appliance.md).
install_modules() {
    local dir=$1 name root path
    mkdir "$dir"
    grep -v '^#' "$2" | while read -r name root; do
        [[ $name ]] || { echo >>"$dir/order"; continue; }
        # What the kernel does not have at all was found missing by image/finalize/modules.
        modinfo --basedir "$tree" -k "$KVER" "$name" >"$scratch/modinfo" 2>&1 || continue
        modprobe --dirname "$tree" --set-version "$KVER" --show-depends "$name" | sed -n 's/^insmod //p' |
            while read -r path; do
                name=$(basename "$path")
                [[ -e $dir/$name ]] && continue
                install -m 644 "$path" "$dir/"
                echo "$name" $root >>"$dir/order"
            done
    done
}

# pack_initrd DIR NAME: NAME.img, compressed, for boot loaders and UKIs; NAME.cpio for QEMU, which
# hands a guest its memory filled, so that the guest need not decompress.
pack_initrd() {
    find "$1" -exec touch --no-dereference --date "@$EPOCH" {} +
    (cd "$1" && find . | LC_ALL=C sort | cpio --create --format=newc --owner=0:0 --reproducible --quiet) >"$2.cpio"
    zstd -19 --quiet --stdout <"$2.cpio" >"$2.img"
}
