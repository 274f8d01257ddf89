// SPDX-License-Identifier: GPL-2.0
/*
 * famfs: editors, the processes that may change names and attributes.
 *
 * The name space is what user space makes of its log. A change that is not in
 * the log is seen on this machine only, and gone after the next mount. So a
 * strict mount refuses changes, to root as well, unless the process has asked
 * to be an editor: by an ioctl on an open directory, which lasts until that is
 * closed. Links and renames are for editors on every mount.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/capability.h>
#include <linux/cleanup.h>
#include <linux/fs.h>
#include <linux/mutex.h>
#include <linux/pid.h>
#include <linux/ratelimit.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "famfs.h"
#include "compat.h"

/**
 * struct famfs_editor - a process that may change names and attributes
 * @entry: in famfs_fs_info.editors
 * @file: the open directory; its release removes the editor
 * @process: the thread group; the reference keeps the identity from reuse
 */
struct famfs_editor {
	struct list_head entry;
	struct file *file;
	struct pid *process;
};

static struct famfs_editor *famfs_editor_of(struct famfs_fs_info *fsi,
					    const struct file *file)
{
	struct famfs_editor *editor;

	list_for_each_entry(editor, &fsi->editors, entry)
		if (editor->file == file)
			return editor;
	return NULL;
}

/* At most one for an open file, so the limits of open files are limits here */
static int famfs_add_editor(struct file *file)
{
	struct famfs_fs_info *fsi = famfs_sb(file_inode(file)->i_sb);
	struct famfs_editor *new __free(kfree) = NULL;
	struct famfs_editor *old;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;

	new = kzalloc_obj(*new, GFP_KERNEL_ACCOUNT);
	if (!new)
		return -ENOMEM;

	guard(mutex)(&fsi->editors_lock);
	old = famfs_editor_of(fsi, file);
	if (old)
		return old->process == task_tgid(current) ? 0 : -EBUSY;

	new->file = file;
	new->process = get_pid(task_tgid(current));
	list_add(&no_free_ptr(new)->entry, &fsi->editors);
	return 0;
}

static void famfs_remove_editor(struct famfs_fs_info *fsi,
				const struct file *file)
{
	struct famfs_editor *editor;

	scoped_guard(mutex, &fsi->editors_lock) {
		editor = famfs_editor_of(fsi, file);
		if (!editor)
			return;
		list_del(&editor->entry);
	}
	put_pid(editor->process);
	kfree(editor);
}

static bool famfs_is_editor(struct famfs_fs_info *fsi)
{
	struct famfs_editor *editor;

	guard(mutex)(&fsi->editors_lock);
	list_for_each_entry(editor, &fsi->editors, entry)
		if (editor->process == task_tgid(current))
			return true;
	return false;
}

static int famfs_refuse(const struct famfs_fs_info *fsi, const char *what,
			const char *hint)
{
	/* A script that tries a thousand times is told once */
	static struct ratelimit_state limit =
		RATELIMIT_STATE_INIT_FLAGS(limit, 5 * HZ, 1,
					   RATELIMIT_MSG_ON_RELEASE);

	if (__ratelimit(&limit))
		pr_notice("%s: %s refused: only the famfs tools make changes that others see and that last: %s\n",
			  fsi->name, what, hint);
	return -EPERM;
}

/**
 * famfs_may_edit - check that the caller may change names and attributes
 * @sb: the mount
 * @what: the change, for the kernel log
 * @hint: how to make it, for the kernel log
 *
 * Return: 0, or -EPERM and now and then a line in the kernel log.
 */
int famfs_may_edit(struct super_block *sb, const char *what, const char *hint)
{
	struct famfs_fs_info *fsi = famfs_sb(sb);

	if (!READ_ONCE(fsi->strict) || famfs_is_editor(fsi))
		return 0;
	return famfs_refuse(fsi, what, hint);
}

/**
 * famfs_is_for_editors - check that the caller may make links and rename
 * @sb: the mount, strict or not
 * @what: the change, for the kernel log
 * @hint: how to make it, for the kernel log
 *
 * The logs of other user space, which mounts that are not strict are for, have
 * no links and no renames: it counts on being refused.
 *
 * Return: 0, or -EPERM and now and then a line in the kernel log.
 */
int famfs_is_for_editors(struct super_block *sb, const char *what,
			 const char *hint)
{
	struct famfs_fs_info *fsi = famfs_sb(sb);

	return famfs_is_editor(fsi) ? 0 : famfs_refuse(fsi, what, hint);
}

static long famfs_dir_ioctl(struct file *file, unsigned int cmd,
			    unsigned long arg)
{
	return cmd == FAMFSIOC_EDIT ? famfs_add_editor(file) : -ENOTTY;
}

static int famfs_dir_release(struct inode *inode, struct file *file)
{
	famfs_remove_editor(famfs_sb(inode->i_sb), file);
	return dcache_dir_close(inode, file);
}

/* simple_dir_operations and the ioctl */
const struct file_operations famfs_dir_operations = {
	.open = dcache_dir_open,
	.release = famfs_dir_release,
	.llseek = dcache_dir_lseek,
	.read = generic_read_dir,
	.iterate_shared = dcache_readdir,
	.fsync = noop_fsync,
	.unlocked_ioctl = famfs_dir_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};
