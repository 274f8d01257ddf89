// SPDX-License-Identifier: GPL-2.0
/*
 * famfs: module, mount and super block.
 *
 * The name space lives in memory only; user space rebuilds it after every
 * mount from a log that it keeps on the device. So a mount needs nothing from
 * the device's contents, and an unformatted device mounts as well.
 */
#include <linux/capability.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/module.h>
#include <linux/path.h>
#include <linux/rcupdate.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/statfs.h>

#include "famfs.h"
#include "compat.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

#define FAMFS_ROOT_MODE 0755

void famfs_put_fs_info(struct famfs_fs_info *fsi)
{
	if (refcount_dec_and_test(&fsi->ref))
		kfree(fsi);
}

static int famfs_statfs(struct dentry *dentry, struct kstatfs *buf)
{
	struct super_block *sb = dentry->d_sb;
	struct famfs_fs_info *fsi = famfs_sb(sb);

	buf->f_type = FAMFS_STATFS_MAGIC;
	buf->f_bsize = sb->s_blocksize;
	buf->f_blocks = fsi->size >> PAGE_SHIFT;
	/* Free means: in no file that user space has told us about */
	buf->f_bfree = buf->f_blocks - READ_ONCE(fsi->used_pages);
	buf->f_bavail = buf->f_bfree;
	buf->f_namelen = NAME_MAX;
	buf->f_fsid = u64_to_fsid(huge_encode_dev(sb->s_dev));
	return 0;
}

static int famfs_show_options(struct seq_file *m, struct dentry *root)
{
	struct famfs_fs_info *fsi = famfs_sb(root->d_sb);

	if (fsi->mode != FAMFS_ROOT_MODE)
		seq_printf(m, ",mode=%03o", fsi->mode);
	seq_puts(m, ",dax=always");
	if (fsi->strict)
		seq_puts(m, ",strict");
	return 0;
}

static const struct super_operations famfs_super_operations = {
	.statfs = famfs_statfs,
	.evict_inode = famfs_evict_inode,
	.free_inode = famfs_free_inode,
	.sync_fs = famfs_sync_fs,
	.show_options = famfs_show_options,
};

enum famfs_param {
	OPT_SOURCE,
	OPT_MODE,
	OPT_DAX,
	OPT_STRICT,
};

static const struct constant_table famfs_dax_modes[] = {
	{ "always", 1 },
	{}
};

static const struct fs_parameter_spec famfs_parameters[] = {
	fsparam_string("source", OPT_SOURCE),
	fsparam_u32oct("mode", OPT_MODE),
	fsparam_enum("dax", OPT_DAX, famfs_dax_modes),
	fsparam_flag_no("strict", OPT_STRICT),
	{}
};

/*
 * Look at the device as soon as it is named, so that the error reaches the
 * fsconfig(2) call that is wrong.
 */
static int famfs_parse_source(struct fs_context *fc, struct fs_parameter *param)
{
	struct path path;
	int err;

	if (fc->source)
		return invalfc(fc, "source is given already: %s", fc->source);

	err = famfs_find_device(fc, param->string, &path);
	if (err)
		return err;
	path_put(&path);

	fc->source = param->string;
	param->string = NULL;
	return 0;
}

static int famfs_parse_param(struct fs_context *fc, struct fs_parameter *param)
{
	struct famfs_fs_info *fsi = fc->s_fs_info;
	struct fs_parse_result result;
	int opt;

	opt = fs_parse(fc, famfs_parameters, param, &result);
	if (opt < 0)
		return opt;

	switch (opt) {
	case OPT_SOURCE:
		return famfs_parse_source(fc, param);
	case OPT_MODE:
		if (result.uint_32 & ~S_IALLUGO)
			return invalfc(fc, "mode=%o: only permission bits",
				       result.uint_32);
		fsi->mode = result.uint_32;
		return 0;
	case OPT_DAX:
		/* The only mode there is */
		return 0;
	case OPT_STRICT:
		fsi->strict = !result.negated;
		return 0;
	}
	return -EINVAL;
}

static int famfs_fill_super(struct super_block *sb)
{
	struct famfs_fs_info *fsi = famfs_sb(sb);
	struct inode *root;

	sb->s_magic = FAMFS_STATFS_MAGIC;
	sb->s_op = &famfs_super_operations;
	sb->s_iflags |= SB_I_NODEV;
	sb->s_maxbytes = FAMFS_MAX_SIZE;
	sb->s_blocksize = PAGE_SIZE;
	sb->s_blocksize_bits = PAGE_SHIFT;
	sb->s_time_gran = 1;

	root = famfs_new_inode(&nop_mnt_idmap, sb, NULL, S_IFDIR | fsi->mode);
	sb->s_root = d_make_root(root);
	return sb->s_root ? 0 : -ENOMEM;
}

/*
 * Compares numbers and not names, whatever node or path led to the device.
 * A character and a block device may have the same number.
 */
static int famfs_test_super(struct super_block *sb, struct fs_context *fc)
{
	struct famfs_fs_info *fsi = famfs_sb(sb);
	struct famfs_fs_info *new = fc->s_fs_info;

	return fsi->devt == new->devt && fsi->is_char == new->is_char;
}

static int famfs_get_tree(struct fs_context *fc)
{
	struct super_block *sb;
	struct path path;
	int err;

	if (!fc->source)
		return invalfc(fc, "no source: which dax device?");

	err = famfs_find_device(fc, fc->source, &path);
	if (err)
		return err;

	/*
	 * Anonymous super blocks for both kinds of device, because only those
	 * go with dentries that exist in memory alone. Two mounts would hold
	 * two name spaces over one log, so the second one is refused.
	 */
	fc->exclusive = true;
	fc->sb_flags |= SB_NOSEC;
	sb = sget_fc(fc, famfs_test_super, set_anon_super_fc);
	if (IS_ERR(sb)) {
		err = PTR_ERR(sb);
		if (err == -EBUSY)
			errorfc(fc, "%s: mounted already", fc->source);
		goto put_path;
	}

	err = famfs_open_device(sb, fc, &path);
	if (err)
		goto kill_super;
	err = famfs_fill_super(sb);
	if (err)
		goto kill_super;

	sb->s_flags |= SB_ACTIVE;
	fc->root = dget(sb->s_root);
	path_put(&path);
	return 0;

kill_super:
	deactivate_locked_super(sb);
put_path:
	path_put(&path);
	return err;
}

static int famfs_reconfigure(struct fs_context *fc)
{
	struct super_block *sb = fc->root->d_sb;
	struct famfs_fs_info *fsi = famfs_sb(sb);
	struct famfs_fs_info *new = fc->s_fs_info;
	int err;

	if (fc->source && !famfs_test_super(sb, fc))
		return invalfc(fc, "%s: not the device that is mounted",
			       fc->source);
	if (new->mode != fsi->mode)
		return invalfc(fc, "mode: only at mount, use chmod");
	if (!(fc->sb_flags & SB_RDONLY) && famfs_device_read_only(fsi)) {
		errorfc(fc, "the device is read-only");
		return -EACCES;
	}
	/* The last chance: the VFS syncs nothing that is read-only */
	if ((fc->sb_flags & SB_RDONLY) && !sb_rdonly(sb)) {
		err = sync_filesystem(sb);
		if (err)
			return err;
	}
	WRITE_ONCE(fsi->strict, new->strict);
	return 0;
}

static void famfs_free_fc(struct fs_context *fc)
{
	struct famfs_fs_info *fsi = fc->s_fs_info;

	if (fsi)
		famfs_put_fs_info(fsi);
}

static const struct fs_context_operations famfs_context_operations = {
	.free = famfs_free_fc,
	.parse_param = famfs_parse_param,
	.get_tree = famfs_get_tree,
	.reconfigure = famfs_reconfigure,
};

static int famfs_init_fs_context(struct fs_context *fc)
{
	struct famfs_fs_info *fsi;

	/*
	 * The VFS asks only when all options are read, and their errors end up
	 * in the kernel log. A user namespace is not enough to write there.
	 */
	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;

	fsi = kzalloc_obj(*fsi, GFP_KERNEL);
	if (!fsi)
		return -ENOMEM;

	refcount_set(&fsi->ref, 1);
	mutex_init(&fsi->editors_lock);
	INIT_LIST_HEAD(&fsi->editors);
	INIT_LIST_HEAD(&fsi->holder_entry);
	mutex_init(&fsi->failure_lock);
	mutex_init(&fsi->maps_lock);
	fsi->used = RB_ROOT_CACHED;
	INIT_LIST_HEAD(&fsi->maps);
	INIT_LIST_HEAD(&fsi->revoked);
	init_waitqueue_head(&fsi->maps_wait);

	fsi->mode = FAMFS_ROOT_MODE;
	if (fc->purpose == FS_CONTEXT_FOR_RECONFIGURE) {
		/* What a remount does not mention stays as it is */
		fsi->mode = famfs_sb(fc->root->d_sb)->mode;
		fsi->strict = famfs_sb(fc->root->d_sb)->strict;
	}

	fc->s_fs_info = fsi;
	fc->ops = &famfs_context_operations;
	return 0;
}

static void famfs_kill_sb(struct super_block *sb)
{
	struct famfs_fs_info *fsi = famfs_sb(sb);

	famfs_kill_pinned_super(sb);
	famfs_release_device(fsi);
	famfs_put_fs_info(fsi);
}

static struct file_system_type famfs_fs_type = {
	.owner = THIS_MODULE,
	.name = "famfs",
	.init_fs_context = famfs_init_fs_context,
	.parameters = famfs_parameters,
	.kill_sb = famfs_kill_sb,
	.fs_flags = FS_ALLOW_IDMAP,
};
MODULE_ALIAS_FS("famfs");

static int __init famfs_init(void)
{
	int err;

	err = famfs_device_init();
	if (err)
		return err;

	err = famfs_counters_init();
	if (err)
		goto device_exit;

	err = register_filesystem(&famfs_fs_type);
	if (err)
		goto counters_exit;
	return 0;

counters_exit:
	famfs_counters_exit();
device_exit:
	famfs_device_exit();
	return err;
}

static void __exit famfs_exit(void)
{
	unregister_filesystem(&famfs_fs_type);
	/* Inodes on their way to famfs_free_inode() */
	rcu_barrier();
	famfs_counters_exit();
	famfs_device_exit();
}

module_init(famfs_init);
module_exit(famfs_exit);

MODULE_DESCRIPTION("Files in shared memory, mapped by lists of dax extents");
MODULE_LICENSE("GPL");
