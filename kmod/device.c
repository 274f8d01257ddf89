// SPDX-License-Identifier: GPL-2.0
/*
 * famfs: finding and holding the dax device that is mounted.
 *
 * It is named by a device node: a character device (devdax, bound to
 * fsdev_dax) or a block device with DAX (pmem). Which one it is follows from
 * the node's number, never from its path.
 */
#include <linux/blkdev.h>
#include <linux/dax.h>
#include <linux/file.h>
#include <linux/fs_context.h>
#include <linux/kdev_t.h>
#include <linux/mount.h>
#include <linux/namei.h>

#include "famfs.h"
#include "compat.h"

/*
 * A dax device of our own, without memory. It tells the major number, which
 * no header does, and killing it is the only way to wait until no failure
 * callback of ours runs any more.
 */
static struct dax_device *famfs_dax_probe;

int famfs_device_init(void)
{
	struct dax_device *dax_dev = alloc_dax(NULL, NULL);

	if (IS_ERR(dax_dev))
		return PTR_ERR(dax_dev);

	famfs_dax_probe = dax_dev;
	return 0;
}

void famfs_device_exit(void)
{
	kill_dax(famfs_dax_probe);
	put_dax(famfs_dax_probe);
}

static unsigned int famfs_dax_major(void)
{
	return MAJOR(dax_inode(famfs_dax_probe)->i_rdev);
}

static int famfs_check_node(struct fs_context *fc, const char *source,
			    const struct path *path)
{
	struct inode *inode = d_backing_inode(path->dentry);

	if (!S_ISCHR(inode->i_mode) && !S_ISBLK(inode->i_mode)) {
		errorfc(fc, "%s: not a device node", source);
		return -ENOTBLK;
	}
	if ((path->mnt->mnt_flags & MNT_NODEV) ||
	    (path->mnt->mnt_sb->s_iflags & SB_I_NODEV)) {
		errorfc(fc, "%s: device nodes are disabled there (nodev)",
			source);
		return -EACCES;
	}
	if (S_ISCHR(inode->i_mode) &&
	    MAJOR(inode->i_rdev) != famfs_dax_major()) {
		errorfc(fc, "%s: character device %u:%u is not a dax device",
			source, MAJOR(inode->i_rdev), MINOR(inode->i_rdev));
		return -ENXIO;
	}
	if (S_ISCHR(inode->i_mode) && !FAMFS_HAS_FSDEV) {
		errorfc(fc, "%s: devdax needs fsdev_dax of Linux 7.2, use pmem",
			source);
		return -EOPNOTSUPP;
	}
	return 0;
}

/**
 * famfs_find_device - look up the device to mount
 * @fc: takes the device's number, and error messages
 * @source: path of a device node
 * @path: the node, to be put by the caller on success
 *
 * Return: 0 or an error that is in the log of @fc too.
 */
int famfs_find_device(struct fs_context *fc, const char *source,
		      struct path *path)
{
	struct famfs_fs_info *fsi = fc->s_fs_info;
	struct inode *inode;
	int err;

	err = kern_path(source, LOOKUP_FOLLOW, path);
	if (err) {
		errorfc(fc, "%s: cannot find it", source);
		return err;
	}
	err = famfs_check_node(fc, source, path);
	if (err) {
		path_put(path);
		return err;
	}

	inode = d_backing_inode(path->dentry);
	fsi->devt = inode->i_rdev;
	fsi->is_char = S_ISCHR(inode->i_mode);
	snprintf(fsi->name, sizeof(fsi->name), "%pd", path->dentry);
	return 0;
}

/* How many of @pages pages from @pgoff on are there and contiguous, if any? */
static long famfs_contiguous(struct famfs_fs_info *fsi, pgoff_t pgoff,
			     long pages)
{
	int lookup = srcu_read_lock(&famfs_lookup_srcu);
	int id = dax_read_lock();
	long got = -EIO;

	if (!famfs_is_dead(fsi))
		got = dax_direct_access(fsi->dax_dev, pgoff, pages, DAX_ACCESS,
					NULL, NULL);
	dax_read_unlock(id);
	srcu_read_unlock(&famfs_lookup_srcu, lookup);
	return got;
}

/* No interface tells the size of a dax device: find the last page there is. */
static u64 famfs_probe_size(struct famfs_fs_info *fsi)
{
	/* Page 'low - 1' exists, page 'high' does not; 2^40 pages are 4 PiB */
	pgoff_t low = 0, high = 1ULL << 40;

	while (low < high) {
		pgoff_t mid = low + (high - low) / 2;

		if (famfs_contiguous(fsi, mid, 1) == 1)
			low = mid + 1;
		else
			high = mid;
	}
	return (u64)low << PAGE_SHIFT;
}

static int famfs_hold_char(struct famfs_fs_info *fsi,
			   struct dax_device *dax_dev)
{
	int err;

	/* A failure may be reported as soon as the device is held */
	scoped_guard(mutex, &famfs_holders_lock) {
		fsi->dax_dev = dax_dev;
		famfs_add_holder(fsi);
	}
	/* Takes the device lock, so not under ours */
	err = fs_dax_get(dax_dev, fsi, &famfs_holder_ops);
	if (!err)
		return 0;

	scoped_guard(mutex, &famfs_holders_lock) {
		famfs_drop_holder(fsi);
		fsi->dax_dev = NULL;
	}
	return err;
}

static int famfs_open_char(struct famfs_fs_info *fsi, struct fs_context *fc,
			   const struct path *path)
{
	struct dax_device *dax_dev;
	struct file *file;
	int err;

	/*
	 * dax_dev_get() makes up a device if there is none with this number;
	 * a node that opens proves that there is. It is open only for that:
	 * kept, it would pin the file system that the node is on.
	 */
	file = dentry_open(path, O_RDONLY | O_LARGEFILE, current_cred());
	if (IS_ERR(file)) {
		err = PTR_ERR(file);
		errorfc(fc, "%s: %s", fc->source,
			err == -ENXIO ? "no dax device with this number" :
					"cannot open it");
		return err;
	}

	dax_dev = dax_dev_get(fsi->devt);
	if (!dax_dev) {
		err = -ENOMEM;
		goto close;
	}

	err = famfs_hold_char(fsi, dax_dev);
	switch (err) {
	case 0:
		fsi->size = famfs_probe_size(fsi);
		if (fsi->size)
			break;
		/* The driver has just gone, without a word to a new holder */
		fallthrough;
	case -ENODEV:
		/* mount(8) takes ENODEV for an unknown file system type */
		err = -ENXIO;
		errorfc(fc, "%s: no driver is bound to it", fc->source);
		break;
	case -EOPNOTSUPP:
		errorfc(fc, "%s: bind it to the driver fsdev_dax first",
			fc->source);
		break;
	case -EBUSY:
		errorfc(fc, "%s: in use by another file system", fc->source);
		break;
	}
	/* fs_dax_get() took a reference of its own */
	put_dax(dax_dev);
close:
	fput(file);
	return err;
}

static int famfs_hold_block(struct famfs_fs_info *fsi, struct fs_context *fc,
			    struct block_device *bdev)
{
	if (!blk_queue_dax(bdev_get_queue(bdev))) {
		errorfc(fc, "%s: block device without DAX", fc->source);
		return -EOPNOTSUPP;
	}

	guard(mutex)(&famfs_holders_lock);
	fsi->dax_dev = fs_dax_get_by_bdev(bdev, &fsi->start, fsi,
					  &famfs_holder_ops);
	if (!fsi->dax_dev) {
		errorfc(fc, "%s: DAX memory is in use or not page aligned",
			fc->source);
		return -EBUSY;
	}
	famfs_add_holder(fsi);
	fsi->size = bdev_nr_bytes(bdev);
	return 0;
}

/**
 * famfs_device_read_only - may the device only be read?
 * @fsi: the mount
 *
 * Return: true for a block device that was set read-only.
 */
bool famfs_device_read_only(const struct famfs_fs_info *fsi)
{
	return fsi->bdev_file && bdev_read_only(file_bdev(fsi->bdev_file));
}

static int famfs_open_block(struct super_block *sb, struct fs_context *fc)
{
	struct famfs_fs_info *fsi = famfs_sb(sb);
	struct file *file;

	file = bdev_file_open_by_dev(fsi->devt, sb_open_mode(fc->sb_flags), sb,
				     NULL);
	if (IS_ERR(file)) {
		errorfc(fc, "%s: cannot open the block device", fc->source);
		return PTR_ERR(file);
	}
	/* famfs_release_device() closes it, after an error too */
	fsi->bdev_file = file;
	if (!(fc->sb_flags & SB_RDONLY) && famfs_device_read_only(fsi)) {
		errorfc(fc, "%s: the device is read-only", fc->source);
		return -EACCES;
	}
	return famfs_hold_block(fsi, fc, file_bdev(file));
}

/**
 * famfs_open_device - hold the device for a new super block
 * @sb: the super block
 * @fc: takes error messages
 * @path: the device node that famfs_find_device() found
 *
 * Return: 0 or an error. famfs_release_device() is due in both cases.
 */
int famfs_open_device(struct super_block *sb, struct fs_context *fc,
		      const struct path *path)
{
	struct famfs_fs_info *fsi = famfs_sb(sb);

	strscpy(sb->s_id, fsi->name, sizeof(sb->s_id));
	if (fsi->is_char)
		return famfs_open_char(fsi, fc, path);
	return famfs_open_block(sb, fc);
}

static void famfs_put_dax_device(struct famfs_fs_info *fsi)
{
	guard(mutex)(&famfs_holders_lock);
	famfs_drop_holder(fsi);
	/*
	 * A device that was removed is not ours since; its dax_device may have
	 * a new holder, which fs_put_dax() would throw out.
	 */
	if (fsi->removed)
		put_dax(fsi->dax_dev);
	else
		fs_put_dax(fsi->dax_dev, fsi);
}

/**
 * famfs_release_device - undo famfs_open_device(), complete or not
 * @fsi: the mount, without inodes
 */
void famfs_release_device(struct famfs_fs_info *fsi)
{
	if (fsi->dax_dev)
		famfs_put_dax_device(fsi);
	if (fsi->bdev_file)
		bdev_fput(fsi->bdev_file);
}

/**
 * famfs_device_has - is there contiguous memory behind a range?
 * @fsi: the mount
 * @offset: first byte on the mounted device
 * @len: bytes, not 0
 *
 * A devdax device can be put together from several ranges; I/O across a seam
 * fails, so no extent may cross one.
 *
 * Return: true if there is.
 */
bool famfs_device_has(struct famfs_fs_info *fsi, u64 offset, u64 len)
{
	long pages = len >> PAGE_SHIFT;

	if (offset >= fsi->size || len > fsi->size - offset)
		return false;
	if (!fsi->is_char)
		return true;

	return famfs_contiguous(fsi, offset >> PAGE_SHIFT, pages) == pages;
}
