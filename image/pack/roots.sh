# SPDX-License-Identifier: Apache-2.0 OR MIT
# The root tree as file systems, for image/pack/forms, which has $tree, $scratch, fail and make_uki.

# Of a file of this size and more, every 2 MiB of memory can be mapped as one page, if it begins at
# such an address.
LARGE=$((2 << 20))

# make_erofs FILE OPTION... SOURCE
make_erofs() {
    mkfs.erofs -T "$EPOCH" -U "$UUID" -L famfs-root --all-root --quiet "$@" >"$scratch/mkfs.log" 2>&1 ||
        fail "mkfs.erofs failed: $(tail -n 5 "$scratch/mkfs.log")"
}

# A compressed root on a disk. lz4hc: zstd is a fifth smaller and takes minutes.
pack_default() {
    make_erofs -z lz4hc,12 -C 65536 "$OUTPUTDIR/root.erofs" "$tree"
    make_uki "$OUTPUTDIR/root.efi" "$OUTPUTDIR/initrd.img" root=/dev/disk/by-id/virtio-famfs-root
}

# A root in memory that VMs share: not compressed, and no file's end beside its inode, because the
# guest would copy either into its page cache. Large files come first, each at a multiple of 2 MiB;
# the others then fill what is left without gaps. mkfs.erofs adds to an image only from archives.
pack_dax() {
    local archive=(tar --create --sort=name --format=gnu --mtime="@$EPOCH" --numeric-owner --owner=0 --group=0)
    (cd "$tree" && find . -type f -size +$((LARGE - 1))c -links 1 | LC_ALL=C sort) >"$scratch/large"
    "${archive[@]}" -C "$tree" -f "$scratch/large.tar" --no-recursion --files-from "$scratch/large"
    # For appliance-init, which maps them before any program does (large.rs).
    mkdir --parents "$scratch/lists/usr/lib/appliance"
    sed 's/^\.//' "$scratch/large" >"$scratch/lists/usr/lib/appliance/large-files"
    "${archive[@]}" -C "$tree" -f "$scratch/small.tar" --exclude-from "$scratch/large" --anchored \
        --no-wildcards . -C "$scratch/lists" ./usr/lib/appliance
    local options=(-E noinline_data --tar=f)
    make_erofs "${options[@]}" --dsunit=$((LARGE / 4096)) "$OUTPUTDIR/root-dax.erofs" "$scratch/large.tar"
    make_erofs "${options[@]}" --incremental=data "$OUTPUTDIR/root-dax.erofs" "$scratch/small.tar"
    truncate --size "%$LARGE" "$OUTPUTDIR/root-dax.erofs"
}

# The default root on a disk with partitions, the second of them with the hashes of the first.
pack_verity() {
    local root=$OUTPUTDIR/root.erofs hash
    [[ -e $root ]] || { root=$scratch/root.erofs; make_erofs -z lz4hc,12 -C 65536 "$root" "$tree"; }
    mkdir "$scratch/repart"
    sed "s:@ROOT@:$root:" "$SRCDIR/image/mkosi.repart/root.conf" >"$scratch/repart/10-root.conf"
    cp "$SRCDIR/image/mkosi.repart/verity.conf" "$scratch/repart/20-verity.conf"
    systemd-repart --offline=yes --empty=create --size=auto --dry-run=no --json=short --no-pager --seed="$UUID" \
        --definitions="$scratch/repart" "$OUTPUTDIR/root-verity.raw" >"$scratch/repart.json" 2>"$scratch/repart.log" ||
        fail "systemd-repart failed: $(tail -n 5 "$scratch/repart.log")"
    hash=$(jq --raw-output 'map(.roothash // empty) | unique | .[]' "$scratch/repart.json")
    [[ $hash =~ ^[0-9a-f]{64}$ ]] || fail "systemd-repart gave no root hash: $(cat "$scratch/repart.json")"
    echo "$hash" >"$OUTPUTDIR/root-verity.roothash"
    make_uki "$OUTPUTDIR/verity.efi" "$OUTPUTDIR/initrd.img" root=/dev/disk/by-id/virtio-famfs-root \
        "roothash=$hash"
}
