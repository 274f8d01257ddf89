// SPDX-License-Identifier: GPL-2.0
/*
 * famfs: the ioctls that give a file its map and tell it.
 *
 * All generations of the interface end in the same famfs_map. Whatever user
 * space passes is checked here, before anything is attached.
 */
#include <linux/capability.h>
#include <linux/cleanup.h>
#include <linux/fs.h>
#include <linux/log2.h>
#include <linux/math64.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "famfs.h"
#include "compat.h"

static struct famfs_map *famfs_alloc_map(u32 nr_spans)
{
	struct famfs_map *map;
	u32 i;

	map = kvzalloc(struct_size(map, spans, nr_spans), GFP_KERNEL_ACCOUNT);
	if (!map)
		return NULL;

	map->nr_spans = nr_spans;
	for (i = 0; i < nr_spans; i++)
		map->spans[i].map = map;
	return map;
}

static int famfs_check_span(struct famfs_fs_info *fsi,
			    const struct famfs_map *map,
			    const struct famfs_span *span)
{
	u64 unit = map->ext_type == FAMFS_EXTENT_INTERLEAVED ? FAMFS_ALIGN :
							       PAGE_SIZE;

	static_assert(PAGE_SIZE >= FAMFS_PAGE);
	if (!span->len)
		return -EINVAL;
	if (!IS_ALIGNED(span->offset, unit) || !IS_ALIGNED(span->len, unit))
		return -EINVAL;
	/* The start of the device is the superblock's, and a typical slip */
	if (!span->offset && map->file_type != FAMFS_FILE_SUPERBLOCK)
		return -EINVAL;
	if (famfs_device_has(fsi, span->offset, span->len))
		return 0;
	/* A device that has just been removed has no memory at all */
	return famfs_is_dead(fsi) ? -EIO : -ERANGE;
}

/* Lay the extents out one after the other. The sum cannot overflow. */
static u64 famfs_lay_out_extents(struct famfs_map *map)
{
	u64 file_offset = 0;
	u32 i;

	for (i = 0; i < map->nr_spans; i++) {
		map->spans[i].file_offset = file_offset;
		file_offset += map->spans[i].len;
	}
	return file_offset;
}

/* Every strip must hold the chunks that fall to it. */
static int famfs_check_strips(const struct famfs_map *map)
{
	unsigned int shift;
	u64 chunks, rows;
	u32 extra, i;

	if (!is_power_of_2(map->chunk_size) || map->chunk_size < FAMFS_ALIGN)
		return -EINVAL;
	if (map->nbytes < map->file_size)
		return -EINVAL;

	shift = ilog2(map->chunk_size);
	chunks = ((map->file_size - 1) >> shift) + 1;
	rows = div_u64_rem(chunks, map->nr_spans, &extra);
	for (i = 0; i < map->nr_spans; i++) {
		u64 needed = rows + (i < extra);

		if (map->spans[i].len >> shift < needed)
			return -EINVAL;
	}
	return 0;
}

static int famfs_check_spans(struct famfs_fs_info *fsi,
			     const struct famfs_map *map)
{
	u32 i;
	int err;

	for (i = 0; i < map->nr_spans; i++) {
		err = famfs_check_span(fsi, map, &map->spans[i]);
		if (err)
			return err;
	}
	return 0;
}

/* Extents or strips, each of which is good by itself, hold the whole file. */
static int famfs_check_extents(struct famfs_map *map)
{
	if (map->file_type > FAMFS_FILE_LOG)
		return -EINVAL;
	if (!map->file_size || map->file_size > FAMFS_MAX_SIZE)
		return -EINVAL;
	if (map->ext_type == FAMFS_EXTENT_INTERLEAVED)
		return famfs_check_strips(map);
	if (map->file_size > famfs_lay_out_extents(map))
		return -EINVAL;
	return 0;
}

/* Pieces are in order and begin within the file. */
static int famfs_check_pieces(struct famfs_map *map)
{
	u64 end = 0;
	u32 i;

	if (map->file_size > FAMFS_MAX_SIZE)
		return -EINVAL;

	for (i = 0; i < map->nr_spans; i++) {
		const struct famfs_span *span = &map->spans[i];

		if (!IS_ALIGNED(span->file_offset, PAGE_SIZE))
			return -EINVAL;
		if (span->file_offset < end ||
		    span->file_offset >= map->file_size)
			return -EINVAL;
		/* Neither is more than 2^63 */
		end = span->file_offset + span->len;
	}
	return 0;
}

static struct famfs_map *famfs_read_map_v42(const void __user *arg)
{
	struct famfs_ioc_map imap;
	struct famfs_map *map;
	u32 i;

	if (copy_from_user(&imap, arg, sizeof(imap)))
		return ERR_PTR(-EFAULT);
	if (imap.extent_type != FAMFS_EXTENT_SIMPLE || !imap.ext_list_count)
		return ERR_PTR(-EINVAL);
	if (imap.ext_list_count > FAMFS_V42_MAX_EXTENTS)
		return ERR_PTR(-E2BIG);

	map = famfs_alloc_map(imap.ext_list_count);
	if (!map)
		return ERR_PTR(-ENOMEM);

	map->file_type = imap.file_type;
	map->file_size = imap.file_size;
	map->ext_type = FAMFS_EXTENT_SIMPLE;
	for (i = 0; i < map->nr_spans; i++) {
		map->spans[i].offset = imap.ext_list[i].offset;
		map->spans[i].len = imap.ext_list[i].len;
	}
	return map;
}

/* A list of @count extents or strips at the user address @list. */
static struct famfs_map *famfs_read_spans(u64 list, u64 count, u64 max)
{
	struct famfs_ioc_simple_extent *uext __free(kfree) = NULL;
	struct famfs_map *map;
	u32 i;

	if (!count)
		return ERR_PTR(-EINVAL);
	if (count > max)
		return ERR_PTR(-E2BIG);

	uext = memdup_array_user(u64_to_user_ptr(list), count, sizeof(*uext));
	if (IS_ERR(uext))
		return ERR_CAST(no_free_ptr(uext));

	map = famfs_alloc_map(count);
	if (!map)
		return ERR_PTR(-ENOMEM);

	for (i = 0; i < map->nr_spans; i++) {
		/* One device per mount: no other index means anything yet */
		if (uext[i].devindex) {
			kvfree(map);
			return ERR_PTR(-ENODEV);
		}
		map->spans[i].offset = uext[i].offset;
		map->spans[i].len = uext[i].len;
	}
	return map;
}

static struct famfs_map *
famfs_read_interleaved(const struct famfs_ioc_fmap *fmap)
{
	struct famfs_ioc_interleaved_extent ie;
	struct famfs_map *map;

	if (!fmap->nextents)
		return ERR_PTR(-EINVAL);
	if (fmap->nextents > 1)
		return ERR_PTR(-E2BIG);
	if (copy_from_user(&ie, u64_to_user_ptr(fmap->extents), sizeof(ie)))
		return ERR_PTR(-EFAULT);

	map = famfs_read_spans(ie.strips, ie.nstrips, FAMFS_MAX_STRIPS);
	if (IS_ERR(map))
		return map;

	map->chunk_size = ie.chunk_size;
	map->nbytes = ie.nbytes;
	return map;
}

static struct famfs_map *famfs_read_map_v43(const void __user *arg)
{
	struct famfs_ioc_fmap fmap;
	struct famfs_map *map;

	if (copy_from_user(&fmap, arg, sizeof(fmap)))
		return ERR_PTR(-EFAULT);

	switch (fmap.ext_type) {
	case FAMFS_EXTENT_SIMPLE:
		map = famfs_read_spans(fmap.extents, fmap.nextents,
				       FAMFS_MAX_EXTENTS);
		break;
	case FAMFS_EXTENT_INTERLEAVED:
		map = famfs_read_interleaved(&fmap);
		break;
	default:
		return ERR_PTR(-EINVAL);
	}
	if (IS_ERR(map))
		return map;

	map->file_type = fmap.file_type;
	map->file_size = fmap.file_size;
	map->ext_type = fmap.ext_type;
	return map;
}

static struct famfs_map *famfs_read_pieces(const void __user *arg)
{
	struct famfs_ioc_piece *list __free(kvfree) = NULL;
	struct famfs_ioc_pieces pieces;
	struct famfs_map *map;
	u32 i;

	if (copy_from_user(&pieces, arg, sizeof(pieces)))
		return ERR_PTR(-EFAULT);
	if (pieces.reserved)
		return ERR_PTR(-EINVAL);
	if (pieces.count > FAMFS_MAX_PIECES)
		return ERR_PTR(-E2BIG);

	list = vmemdup_array_user(u64_to_user_ptr(pieces.pieces), pieces.count,
				  sizeof(*list));
	if (IS_ERR(list))
		return ERR_CAST(no_free_ptr(list));

	map = famfs_alloc_map(pieces.count);
	if (!map)
		return ERR_PTR(-ENOMEM);

	map->file_type = FAMFS_FILE_REGULAR;
	map->file_size = pieces.file_size;
	map->ext_type = FAMFS_EXTENT_SIMPLE;
	for (i = 0; i < map->nr_spans; i++) {
		map->spans[i].file_offset = list[i].file_offset;
		map->spans[i].offset = list[i].offset;
		map->spans[i].len = list[i].len;
	}
	return map;
}

/*
 * A map gives access to any part of the device, so attaching one is as
 * privileged as the mount itself, whoever owns the file.
 */
static int famfs_map_create(struct file *file, const void __user *arg,
			    struct famfs_map *(*read)(const void __user *arg),
			    int (*check)(struct famfs_map *map))
{
	struct inode *inode = file_inode(file);
	struct famfs_map *map;
	int err;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (!(file->f_mode & FMODE_WRITE))
		return -EBADF;

	map = read(arg);
	if (IS_ERR(map))
		return PTR_ERR(map);

	err = famfs_check_spans(famfs_sb(inode->i_sb), map);
	if (!err)
		err = check(map);
	if (!err)
		err = famfs_attach_map(inode, map);
	if (err)
		kvfree(map);
	return err;
}

/*
 * Can the lists of the first two generations tell it? They know no holes and
 * have no more room, for which their callers count on.
 */
static bool famfs_is_list(const struct famfs_map *map)
{
	u64 end = 0;
	u32 i;

	if (map->ext_type == FAMFS_EXTENT_INTERLEAVED)
		return true;
	if (map->nr_spans > FAMFS_MAX_EXTENTS)
		return false;

	for (i = 0; i < map->nr_spans; i++) {
		if (map->spans[i].file_offset != end)
			return false;
		end += map->spans[i].len;
	}
	return end >= map->file_size;
}

static int famfs_map_get(const struct famfs_map *map, void __user *arg)
{
	struct famfs_ioc_map imap = {
		.extent_type = map->ext_type,
		.file_type = map->file_type,
		.file_size = map->file_size,
		.ext_list_count = map->nr_spans,
	};
	u32 i;

	for (i = 0; i < min(map->nr_spans, FAMFS_V42_MAX_EXTENTS); i++) {
		imap.ext_list[i].offset = map->spans[i].offset;
		imap.ext_list[i].len = map->spans[i].len;
	}
	return copy_to_user(arg, &imap, sizeof(imap)) ? -EFAULT : 0;
}

static int famfs_map_getext(const struct famfs_map *map, void __user *arg)
{
	struct famfs_extent list[FAMFS_MAX_EXTENTS];
	u32 i;

	static_assert(FAMFS_MAX_STRIPS <= FAMFS_MAX_EXTENTS);
	for (i = 0; i < map->nr_spans; i++) {
		list[i].offset = map->spans[i].offset;
		list[i].len = map->spans[i].len;
	}
	if (copy_to_user(arg, list, map->nr_spans * sizeof(list[0])))
		return -EFAULT;
	return 0;
}

static int famfs_map_get_v43(const struct famfs_map *map, void __user *arg)
{
	struct famfs_ioc_get_fmap *get __free(kfree) =
		kzalloc_obj(*get, GFP_KERNEL);
	struct famfs_ioc_simple_extent *list;
	u32 i;

	if (!get)
		return -ENOMEM;

	get->fmap.file_size = map->file_size;
	get->fmap.file_type = map->file_type;
	get->fmap.ext_type = map->ext_type;
	if (map->ext_type == FAMFS_EXTENT_SIMPLE) {
		get->fmap.nextents = map->nr_spans;
		list = get->simple;
	} else {
		get->fmap.nextents = 1;
		get->interleaved.nstrips = map->nr_spans;
		get->interleaved.chunk_size = map->chunk_size;
		get->interleaved.nbytes = map->nbytes;
		list = get->strips;
	}
	for (i = 0; i < map->nr_spans; i++) {
		list[i].offset = map->spans[i].offset;
		list[i].len = map->spans[i].len;
	}
	return copy_to_user(arg, get, sizeof(*get)) ? -EFAULT : 0;
}

static int famfs_get_pieces(const struct famfs_map *map, void __user *arg)
{
	struct famfs_ioc_piece __user *list;
	struct famfs_ioc_pieces pieces;
	u32 i;

	if (copy_from_user(&pieces, arg, sizeof(pieces)))
		return -EFAULT;
	if (pieces.reserved)
		return -EINVAL;
	if (map->ext_type != FAMFS_EXTENT_SIMPLE)
		return -EOPNOTSUPP;

	list = u64_to_user_ptr(pieces.pieces);
	for (i = 0; i < min(map->nr_spans, pieces.count); i++) {
		struct famfs_ioc_piece piece = {
			.file_offset = map->spans[i].file_offset,
			.offset = map->spans[i].offset,
			.len = map->spans[i].len,
		};

		if (copy_to_user(&list[i], &piece, sizeof(piece)))
			return -EFAULT;
	}
	pieces.file_size = map->file_size;
	pieces.count = map->nr_spans;
	return copy_to_user(arg, &pieces, sizeof(pieces)) ? -EFAULT : 0;
}

/**
 * famfs_ioctl - the ioctls of regular files
 * @file: the file
 * @cmd: FAMFSIOC_*
 * @arg: user pointer to what @cmd is about
 *
 * Return: 0 or an error; docs/reference/kernel-module.md has the list.
 */
long famfs_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct inode *inode = file_inode(file);
	void __user *uarg = (void __user *)arg;
	struct famfs_map *map;

	BUILD_BUG_ON(sizeof(struct famfs_ioc_map) != 56);
	BUILD_BUG_ON(sizeof(struct famfs_ioc_fmap) != 32);
	BUILD_BUG_ON(sizeof(struct famfs_ioc_get_fmap) != 448);
	BUILD_BUG_ON(sizeof(struct famfs_ioc_pieces) != 24);

	if (famfs_is_dead(famfs_sb(inode->i_sb)))
		return -EIO;

	switch (cmd) {
	case FAMFSIOC_NOP:
		return 0;
	case FAMFSIOC_MAP_CREATE:
		return famfs_map_create(file, uarg, famfs_read_map_v42,
					famfs_check_extents);
	case FAMFSIOC_MAP_CREATE_V2:
		return famfs_map_create(file, uarg, famfs_read_map_v43,
					famfs_check_extents);
	case FAMFSIOC_MAP_PIECES:
		return famfs_map_create(file, uarg, famfs_read_pieces,
					famfs_check_pieces);
	case FAMFSIOC_MAP_GET:
	case FAMFSIOC_MAP_GETEXT:
	case FAMFSIOC_MAP_GET_V2:
	case FAMFSIOC_GET_PIECES:
		break;
	default:
		return -ENOTTY;
	}

	map = famfs_inode_map(inode);
	if (!map)
		return -ENODATA;
	if (cmd == FAMFSIOC_GET_PIECES)
		return famfs_get_pieces(map, uarg);
	if (!famfs_is_list(map))
		return -EOVERFLOW;
	if (cmd == FAMFSIOC_MAP_GET)
		return famfs_map_get(map, uarg);
	if (cmd == FAMFSIOC_MAP_GETEXT)
		return famfs_map_getext(map, uarg);
	return famfs_map_get_v43(map, uarg);
}
