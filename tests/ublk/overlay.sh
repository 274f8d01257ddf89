# SPDX-License-Identifier: Apache-2.0 OR MIT
# shellcheck shell=bash
cp "$(findmnt --noheadings --output SOURCE /)" $scratch/image
before=$(digest $scratch/image)
mkdir -p $scratch/mnt

serve add --image $scratch/image --overlay $scratch/overlay
mount -t erofs -o ro "$device" $scratch/mnt
[[ -x $scratch/mnt/usr/bin/famfs ]]
umount $scratch/mnt
# Another file system replaces it, in the overlay only.
mkfs.ext4 -q -F "$device" 2>/dev/null
mount -t ext4 "$device" $scratch/mnt
cp -r /usr/lib/systemd/system /usr/bin/famfs $scratch/mnt/
umount $scratch/mnt
remove
[[ $(digest $scratch/image) == "$before" ]] || fail "the image was changed"

# Again, read-only, and then with another overlay.
serve add --image $scratch/image --overlay $scratch/overlay --read-only
mount -t ext4 -o ro,noload "$device" $scratch/mnt
diff -r /usr/lib/systemd/system $scratch/mnt/system
cmp /usr/bin/famfs $scratch/mnt/famfs
umount $scratch/mnt
remove
serve add --image $scratch/image --ephemeral
cmp $scratch/image "$device"
remove
allocated=$(stat --format=%b $scratch/overlay)
length=$(stat --format=%s $scratch/overlay)
((allocated * 512 < length)) || fail "the overlay is not sparse: $allocated blocks of $length bytes"
rm $scratch/image $scratch/overlay
