# SPDX-License-Identifier: Apache-2.0 OR MIT
# The examples in helps and documents that need a guest, each on its own line, in a working order.
# Runs in a VM whose pool is not attached and may be formatted.
# famfs/cli/tests/examples.rs checks that none is missing. Lines with "prepare" only create what the
# next examples need.
prepare() { "$@"; }
# Waits until the log is followed: the process that follows it records its id.
watched() {
    local file
    while sleep 0.1; do
        for file in /run/famfs/*; do
            if [[ -s $file && -d /proc/$(<"$file") ]]; then return; fi
        done
    done
}

prepare mkdir -p /tmp/examples/dataset
prepare cd /tmp/examples
prepare dd if=/dev/urandom of=dataset/one bs=1000 count=1 status=none
prepare dd if=/dev/urandom of=dataset/two bs=1000 count=1 status=none
prepare truncate --size 64M OTHER
prepare famfs --pool OTHER mkfs
prepare famfs --pool OTHER mkdir b

# Mounting.
famfs attach --dry-run
famfs attach
prepare famfs umount /mnt/famfs
famfs attach --mount-point /mnt/famfs
famfs umount /mnt/famfs
famfs attach --read-only
prepare famfs umount /mnt/famfs
famfs attach --noexec
prepare famfs umount /mnt/famfs
famfs attach --mount-point /mnt/famfs --device /dev/dax0.0 --json
prepare famfs umount /mnt/famfs
famfs logplay --dry-run --daxdev /dev/dax0.0
famfs mkfs --force --kill /dev/dax0.0
prepare famfs mkfs --reference /dev/dax0.0
prepare famfs mount /dev/dax0.0 /mnt/famfs
famfs upgrade /mnt/famfs
prepare famfs umount /mnt/famfs
prepare famfs mkfs --force --kill /dev/dax0.0
famfs mkfs --entries 100000 /dev/dax0.0
famfs mount --dry-run /dev/dax0.0 /mnt/famfs
famfs mount /dev/dax0.0 /mnt/famfs
prepare famfs umount /mnt/famfs
famfs mount -o ro /dev/dax0.0 /mnt/famfs
prepare famfs umount /mnt/famfs
famfs mount -o noexec /dev/dax0.0 /mnt/famfs
umount /mnt/famfs
mount -t famfs /dev/dax0.0 /mnt/famfs
famfs mkmeta /dev/dax0.0

# Writing.
famfs watch /mnt/famfs &
prepare watched
famfs creat --size 64m --seed 42 /mnt/famfs/new
famfs cp -r dataset /mnt/famfs
prepare famfs cp dataset/one /mnt/famfs/model
prepare cp dataset/two model
famfs cp --replace model /mnt/famfs/model
prepare cp -r dataset v2
famfs cp -r --atomic v2 /mnt/famfs
famfs cp --compare -r dataset /mnt/famfs
famfs creat -s 64m -S 42 /mnt/famfs/a
famfs creat -s 64m -B 8 -N 4 -C 2m /mnt/famfs/b
prepare famfs rm /mnt/famfs/a /mnt/famfs/b
prepare famfs creat -s 4m -S 9 /mnt/famfs/data
prepare famfs creat -s 4m -S 1 /mnt/famfs/a
prepare famfs creat -s 4m -S 2 /mnt/famfs/b
prepare famfs creat -s 4m /mnt/famfs/old
famfs rm /mnt/famfs/old
famfs mkdir /mnt/famfs/models
famfs logplay /mnt/famfs
famfs logplay --dry-run -v /mnt/famfs

# Names and attributes.
prepare famfs cp dataset/one /mnt/famfs/models/a
famfs ln /mnt/famfs/models/a /mnt/famfs/best
famfs ln -s models/v2 /mnt/famfs/next
prepare famfs ln -s models/v1 /mnt/famfs/current
famfs mv /mnt/famfs/next /mnt/famfs/current
prepare famfs touch /mnt/famfs/draft /mnt/famfs/x /mnt/famfs/y
famfs mv /mnt/famfs/draft /mnt/famfs/final
famfs mv -n /mnt/famfs/x /mnt/famfs/y /mnt/famfs/models/
prepare famfs touch /mnt/famfs/secret /mnt/famfs/tool
famfs chmod 640 /mnt/famfs/secret
famfs chmod u+x,go-w /mnt/famfs/tool
prepare famfs mkdir /mnt/famfs/shared
famfs chmod -R a+rX /mnt/famfs/shared
prepare famfs mkdir /mnt/famfs/home
famfs chown 1000:100 /mnt/famfs/home
famfs chown -R 0:0 /mnt/famfs/shared
famfs touch /mnt/famfs/ready
famfs touch -c -d 2026-11-28T12:00:00Z /mnt/famfs/models/a
famfs touch -r /mnt/famfs/models/a /mnt/famfs/best
famfs rm -r /mnt/famfs/shared /mnt/famfs/home

# Reading.
famfs ls /mnt/famfs
famfs ls -l /mnt/famfs
famfs stat /mnt/famfs/data
famfs tree /mnt/famfs
famfs df -h /mnt/famfs
famfs du -h -s /mnt/famfs/data
famfs map /mnt/famfs
famfs dump --json /mnt/famfs
famfs getmap /mnt/famfs/data
famfs verify --seed 42 --file /mnt/famfs/new
famfs verify -S 42 -f /mnt/famfs/new
famfs verify --multi /mnt/famfs/a,1 --multi /mnt/famfs/b,2 --threads 2
famfs sum --faults /mnt/famfs/new
famfs sum --faults --json /mnt/famfs/data
famfs chkread /mnt/famfs/data
famfs chkread -s /mnt/famfs/.meta/.superblock
famfs chkread -l /mnt/famfs/.meta/.log
famfs flush /mnt/famfs/data
famfs check /mnt/famfs
famfs fsck -h /mnt/famfs
famfs fsck --json /mnt/famfs
famfs doctor

# Archives; names that were files become directories.
prepare famfs export -o dataset.tar /mnt/famfs/dataset
prepare famfs mkdir /mnt/famfs/datasets
famfs import --atomic --input dataset.tar /mnt/famfs/datasets
prepare famfs rm /mnt/famfs/a /mnt/famfs/data
prepare famfs mkdir /mnt/famfs/a
prepare famfs cp dataset/one /mnt/famfs/a/one
famfs export /mnt/famfs/a | famfs --pool OTHER import /b
famfs mkdir -p -m 2775 -g 100 /mnt/famfs/data/2026

# The watch takes its place as soon as it follows.
famfs publish --wait-all --members 1 /mnt/famfs
famfs members /mnt/famfs

# A watch ends when the file system is unmounted.
prepare famfs umount /mnt/famfs
prepare wait $!
prepare famfs attach
famfs role /mnt/famfs
famfs takeover --yes /mnt/famfs
{ prepare watched; prepare famfs umount /mnt/famfs; } &
famfs watch /mnt/famfs
prepare wait $!
