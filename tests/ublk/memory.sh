# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
# moved: how many bytes the server itself has read and written with system calls so far.
moved() {
    awk '$1 == "rchar:" { read = $2 } $1 == "wchar:" { print read, $2 }' "/proc/$server/io"
}

# Without holes: from the mapping to the pages of the request, with one system call.
head --bytes 8M /dev/urandom >$scratch/image
for source in --image --pool; do
    [[ $source == --image ]] || head --bytes 16M /dev/urandom >$scratch/image
    size=$(stat --format=%s $scratch/image)
    serve add $source $scratch/image --read-only
    read -r read_before written_before < <(moved)
    # Bypass the page cache, which has the data that the kernel read to find partitions.
    dd if="$device" bs=1M iflag=direct status=none | cmp $scratch/image -
    read -r read_after written_after < <(moved)
    ((written_after - written_before >= size)) || fail "$source: only $((written_after - written_before)) bytes"
    ((read_after - read_before < 1 << 20)) || fail "$source: $((read_after - read_before)) bytes were copied twice"
    remove
done

# Only the data that was cut off below the device is missing.
serve add --image $scratch/image --read-only
cp $scratch/image $scratch/copy
truncate --size 8M $scratch/image
dd if="$device" bs=1M count=8 iflag=direct status=none | cmp --bytes=8M $scratch/copy -
refused "Input/output error" dd if="$device" of=/dev/null bs=1M skip=8 count=1 iflag=direct status=none
remove

# With holes: reading them does not fill them.
rm $scratch/image
truncate --size 16M $scratch/image
dd if=$scratch/copy of=$scratch/image bs=1M count=1 conv=notrunc status=none
serve add --image $scratch/image --read-only
cmp $scratch/image "$device"
remove
blocks=$(stat --format=%b $scratch/image)
((blocks * 512 == 1 << 20)) || fail "the image takes $((blocks * 512)) bytes"
rm $scratch/image $scratch/copy
