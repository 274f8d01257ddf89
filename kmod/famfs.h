/* SPDX-License-Identifier: GPL-2.0 */
/*
 * famfs: what the parts of the module share.
 *
 * A mount (famfs_fs_info) owns one dax device and a list of maps. A map
 * (famfs_map) says where the bytes of one file are; it is attached once and
 * lives until the inode is evicted. The module never reads or writes the
 * device's contents on its own account.
 */
#ifndef _FAMFS_H
#define _FAMFS_H

#include <linux/dax.h>
#include <linux/fs.h>
#include <linux/interval_tree.h>
#include <linux/jump_label.h>
#include <linux/list.h>
#include <linux/mm_types.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/srcu.h>
#include <linux/wait.h>

#include "uapi/famfs_ioctl.h"

struct fs_context;
struct path;

/**
 * struct famfs_fs_info - one mount
 * @ref: the super block, and each failure callback that runs
 * @mode: permission bits of the root directory
 * @strict: only editors change names and attributes; read without a lock
 * @editors: who they are, as struct famfs_editor; guarded by @editors_lock
 * @devt: number of the mounted device
 * @is_char: @devt is a character (devdax) and not a block (pmem) device
 * @name: name of the device node, for messages
 * @bdev_file: keeps the block device open and exclusive; NULL for devdax
 * @dax_dev: the memory; NULL until the device is held
 * @start: where the mounted partition starts on @dax_dev, in bytes
 * @size: bytes that extents may use
 * @holder_entry: in the list of all holders; guarded by the holders lock
 * @removed: @dax_dev is no longer ours; guarded by the holders lock
 * @dead: memory or device is lost; set once, read without the lock
 * @used: device pages that belong to a map, as famfs_span nodes
 * @used_pages: how many those are
 * @maps: maps with mappings in user space possible
 * @revoked: maps that the current failure callback is done with
 * @maps_wait: somebody waits for a map to become idle or go away
 */
struct famfs_fs_info {
	refcount_t ref;
	umode_t mode;

	bool strict;
	/** @editors_lock: a leaf */
	struct mutex editors_lock;
	struct list_head editors;

	dev_t devt;
	bool is_char;
	char name[32];
	struct file *bdev_file;
	struct dax_device *dax_dev;
	u64 start;
	u64 size;

	struct list_head holder_entry;
	bool removed;

	/** @failure_lock: one failure callback at a time; outside maps_lock */
	struct mutex failure_lock;
	/** @maps_lock: guards what follows, and famfs_map where it says so */
	struct mutex maps_lock;
	bool dead;
	struct rb_root_cached used;
	unsigned long used_pages;
	struct list_head maps;
	struct list_head revoked;
	wait_queue_head_t maps_wait;
};

/**
 * struct famfs_span - a contiguous range of the device: an extent or a strip
 * @node: its pages in famfs_fs_info.used; guarded by maps_lock
 * @map: the map it is part of
 * @offset: first byte on the mounted device
 * @len: bytes
 * @file_offset: file offset of the first byte, unless it is a strip
 */
struct famfs_span {
	struct interval_tree_node node;
	struct famfs_map *map;
	u64 offset;
	u64 len;
	u64 file_offset;
};

/**
 * struct famfs_map - where the bytes of a file are; constant but for the state
 * @entry: in famfs_fs_info.maps or .revoked; guarded by maps_lock
 * @inode: the file
 * @busy: a failure callback uses the map; guarded by maps_lock
 * @dying: the inode is being evicted; guarded by maps_lock
 * @file_size: bytes
 * @file_type: enum famfs_file_type
 * @ext_type: enum famfs_extent_type
 * @chunk_size: bytes, a power of two, for interleaved maps
 * @nbytes: as given by user space, for interleaved maps
 * @nr_spans: number of @spans
 * @spans: extents in file order, with holes between them, or strips
 */
struct famfs_map {
	struct list_head entry;
	struct inode *inode;
	bool busy;
	bool dying;

	u64 file_size;
	u32 file_type;
	u32 ext_type;
	u64 chunk_size;
	u64 nbytes;
	u32 nr_spans;
	struct famfs_span spans[] __counted_by(nr_spans);
};

/**
 * struct famfs_piece - bytes that are contiguous in the file and on the device
 * @file_offset: of the first byte
 * @dev_offset: of the first byte
 * @len: bytes
 * @hole: they are not on the device at all, and @dev_offset means nothing
 */
struct famfs_piece {
	u64 file_offset;
	u64 dev_offset;
	u64 len;
	bool hole;
};

/* No size or offset in a file overflows, however it is rounded up */
#define FAMFS_MAX_SIZE round_down((u64)MAX_LFS_FILESIZE, FAMFS_ALIGN)

static inline struct famfs_fs_info *famfs_sb(const struct super_block *sb)
{
	return sb->s_fs_info;
}

/* The file's map, or NULL for a file that was never given one. */
static inline struct famfs_map *famfs_inode_map(const struct inode *inode)
{
	/* Pairs with the release in famfs_attach_map() */
	return smp_load_acquire(&inode->i_private);
}

static inline bool famfs_is_dead(const struct famfs_fs_info *fsi)
{
	return READ_ONCE(fsi->dead);
}

/* super.c */
void famfs_put_fs_info(struct famfs_fs_info *fsi);

/* device.c */
int famfs_find_device(struct fs_context *fc, const char *source,
		      struct path *path);
int famfs_open_device(struct super_block *sb, struct fs_context *fc,
		      const struct path *path);
void famfs_release_device(struct famfs_fs_info *fsi);
bool famfs_device_read_only(const struct famfs_fs_info *fsi);
bool famfs_device_has(struct famfs_fs_info *fsi, u64 offset, u64 len);
int famfs_device_init(void);
void famfs_device_exit(void);

/* editor.c */
extern const struct file_operations famfs_dir_operations;
int famfs_may_edit(struct super_block *sb, const char *what, const char *hint);
int famfs_is_for_editors(struct super_block *sb, const char *what,
			 const char *hint);

/* failure.c */
extern const struct dax_holder_operations famfs_holder_ops;
void famfs_add_holder(struct famfs_fs_info *fsi);
void famfs_drop_holder(struct famfs_fs_info *fsi);
extern struct mutex famfs_holders_lock;
extern struct srcu_struct famfs_lookup_srcu;

/* inode.c */
struct inode *famfs_new_inode(struct mnt_idmap *idmap, struct super_block *sb,
			      const struct inode *dir, umode_t mode);
void famfs_evict_inode(struct inode *inode);
void famfs_free_inode(struct inode *inode);

/* map.c */
int famfs_attach_map(struct inode *inode, struct famfs_map *map);
void famfs_retire_map(struct famfs_fs_info *fsi, struct famfs_map *map);
void famfs_drop_pages(struct famfs_fs_info *fsi, struct famfs_map *map);
void famfs_free_map(struct famfs_fs_info *fsi, struct famfs_map *map);
void famfs_piece_at(const struct famfs_map *map, u64 pos,
		    struct famfs_piece *piece);
void famfs_piece_of_span(const struct famfs_span *span, u64 dev_offset,
			 struct famfs_piece *piece);

/* ioctl.c */
long famfs_ioctl(struct file *file, unsigned int cmd, unsigned long arg);

/* counters.c */
DECLARE_STATIC_KEY_FALSE(famfs_count_faults);
void famfs_count_fault(unsigned int order, vm_fault_t ret);
int famfs_counters_init(void);
void famfs_counters_exit(void);

/* file.c */
extern const struct file_operations famfs_file_operations;
extern const struct address_space_operations famfs_aops;
int famfs_sync_fs(struct super_block *sb, int wait);

#endif /* _FAMFS_H */
