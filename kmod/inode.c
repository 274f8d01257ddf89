// SPDX-License-Identifier: GPL-2.0
/*
 * famfs: inodes and directories, which exist in memory only.
 *
 * Files are born empty and without data; MAP_CREATE or MAP_PIECES gives them
 * their bytes and their size. There are no device nodes, fifos and sockets:
 * ->mknod is here only to tell who tries what there is instead.
 */
#include <linux/fs.h>
#include <linux/pagemap.h>
#include <linux/posix_acl.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "famfs.h"
#include "compat.h"

static int famfs_setattr(struct mnt_idmap *idmap, struct dentry *dentry,
			 struct iattr *attr)
{
	struct inode *inode = d_inode(dentry);
	int err;

	/* The extents decide the size, now and for as long as the file lives */
	if (attr->ia_valid & ATTR_SIZE) {
		if (attr->ia_size != i_size_read(inode))
			return -EPERM;
		attr->ia_valid &= ~ATTR_SIZE;
	} else if (!(attr->ia_valid & ATTR_FORCE)) {
		/* Forced is what comes with a write: privileges that it ends */
		err = famfs_may_edit(inode->i_sb, "changing attributes",
				     "famfs chmod, famfs chown or famfs touch");
		if (err)
			return err;
	}
	return simple_setattr(idmap, dentry, attr);
}

static const struct inode_operations famfs_file_inode_operations = {
	.setattr = famfs_setattr,
};

static const struct inode_operations famfs_symlink_inode_operations = {
	.get_link = simple_get_link,
	.setattr = famfs_setattr,
};

static const struct inode_operations famfs_dir_inode_operations;

struct inode *famfs_new_inode(struct mnt_idmap *idmap, struct super_block *sb,
			      const struct inode *dir, umode_t mode)
{
	struct inode *inode = new_inode(sb);

	if (!inode)
		return NULL;

	inode->i_ino = get_next_ino();
	inode_init_owner(idmap, inode, dir, mode);
	simple_inode_init_ts(inode);
	/* There are none, which spares path walks the question */
	cache_no_acl(inode);
	if (S_ISDIR(mode)) {
		inode->i_op = &famfs_dir_inode_operations;
		inode->i_fop = &famfs_dir_operations;
		/* For its own "." entry */
		inc_nlink(inode);
	} else if (S_ISLNK(mode)) {
		inode->i_op = &famfs_symlink_inode_operations;
	} else {
		inode->i_op = &famfs_file_inode_operations;
		inode->i_fop = &famfs_file_operations;
		inode->i_mapping->a_ops = &famfs_aops;
	}
	return inode;
}

/* @target is that of a symbolic link, or NULL. */
static int famfs_make_node(struct mnt_idmap *idmap, struct inode *dir,
			   struct dentry *dentry, umode_t mode,
			   const char *target)
{
	struct inode *inode;

	if (famfs_is_dead(famfs_sb(dir->i_sb)))
		return -EIO;

	inode = famfs_new_inode(idmap, dir->i_sb, dir, mode);
	if (!inode)
		return -ENOMEM;

	if (target) {
		inode->i_link = kstrdup(target, GFP_KERNEL_ACCOUNT);
		if (!inode->i_link) {
			iput(inode);
			return -ENOMEM;
		}
		i_size_write(inode, strlen(target));
	}
	famfs_pin_dentry(dentry, inode);
	inode_set_mtime_to_ts(dir, inode_set_ctime_current(dir));
	return 0;
}

/* User space takes this symbol in kallsyms as a sign of the module: keep it */
static int famfs_create(FAMFS_CREATE_ARGS)
{
	int err;

	err = famfs_may_edit(dir->i_sb, "creating a file",
			     "famfs cp or famfs creat");
	if (err)
		return err;
	return famfs_make_node(idmap, dir, dentry, mode | S_IFREG, NULL);
}

static famfs_mkdir_ret famfs_mkdir(struct mnt_idmap *idmap, struct inode *dir,
				   struct dentry *dentry, umode_t mode)
{
	int err;

	err = famfs_may_edit(dir->i_sb, "making a directory", "famfs mkdir");
	if (!err)
		err = famfs_make_node(idmap, dir, dentry, mode | S_IFDIR, NULL);
	if (!err)
		inc_nlink(dir);
	return famfs_mkdir_error(err);
}

static int famfs_unlink(struct inode *dir, struct dentry *dentry)
{
	int err;

	err = famfs_may_edit(dir->i_sb, "removing a file", "famfs rm");
	return err ?: simple_unlink(dir, dentry);
}

static int famfs_rmdir(struct inode *dir, struct dentry *dentry)
{
	int err;

	err = famfs_may_edit(dir->i_sb, "removing a directory", "famfs rm -r");
	return err ?: simple_rmdir(dir, dentry);
}

static int famfs_link(struct dentry *old_dentry, struct inode *dir,
		      struct dentry *dentry)
{
	int err;

	err = famfs_is_for_editors(dir->i_sb, "a link", "famfs ln");
	if (err)
		return err;
	if (famfs_is_dead(famfs_sb(dir->i_sb)))
		return -EIO;
	return simple_link(old_dentry, dir, dentry);
}

static int famfs_symlink(struct mnt_idmap *idmap, struct inode *dir,
			 struct dentry *dentry, const char *target)
{
	int err;

	err = famfs_is_for_editors(dir->i_sb, "a symbolic link",
				   "famfs ln -s");
	if (err)
		return err;
	return famfs_make_node(idmap, dir, dentry, S_IFLNK | 0777, target);
}

static int famfs_mknod(struct mnt_idmap *idmap, struct inode *dir,
		       struct dentry *dentry, umode_t mode, dev_t rdev)
{
	famfs_may_edit(dir->i_sb, "a special file",
		       "there are regular files, directories and links only");
	return -EPERM;
}

static int famfs_rename(struct mnt_idmap *idmap, struct inode *old_dir,
			struct dentry *old_dentry, struct inode *new_dir,
			struct dentry *new_dentry, unsigned int flags)
{
	int err;

	err = famfs_is_for_editors(old_dir->i_sb, "renaming", "famfs mv");
	if (err)
		return err;
	if (famfs_is_dead(famfs_sb(old_dir->i_sb)))
		return -EIO;
	return simple_rename(idmap, old_dir, old_dentry, new_dir, new_dentry,
			     flags);
}

static const struct inode_operations famfs_dir_inode_operations = {
	.create = famfs_create,
	.link = famfs_link,
	.lookup = simple_lookup,
	.mkdir = famfs_mkdir,
	.mknod = famfs_mknod,
	.rename = famfs_rename,
	.rmdir = famfs_rmdir,
	.setattr = famfs_setattr,
	.symlink = famfs_symlink,
	.unlink = famfs_unlink,
};

void famfs_evict_inode(struct inode *inode)
{
	struct famfs_fs_info *fsi = famfs_sb(inode->i_sb);
	struct famfs_map *map = famfs_inode_map(inode);

	if (map) {
		famfs_retire_map(fsi, map);
		famfs_drop_pages(fsi, map);
	}
	truncate_inode_pages_final(&inode->i_data);
	clear_inode(inode);
	/* Only now may another file get the same range of the device */
	if (map)
		famfs_free_map(fsi, map);
}

/* When nobody can follow the link any more, not even without a reference */
void famfs_free_inode(struct inode *inode)
{
	if (S_ISLNK(inode->i_mode))
		kfree(inode->i_link);
	free_inode_nonrcu(inode);
}
