// SPDX-License-Identifier: GPL-2.0
/*
 * famfs: maps, from file offsets to ranges of the device.
 *
 * No page of the device is in two maps: fs/dax.c keeps one owner per folio.
 * A range stays taken until the inode that had it is evicted, which may be
 * long after unlink(2).
 */
#include <linux/blk_types.h>
#include <linux/fs.h>
#include <linux/log2.h>
#include <linux/math64.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/slab.h>

#include "famfs.h"
#include "compat.h"
#include "trace.h"

static void famfs_untake_spans(struct famfs_fs_info *fsi,
			       struct famfs_map *map, u32 nr)
{
	lockdep_assert_held(&fsi->maps_lock);

	while (nr--) {
		struct famfs_span *span = &map->spans[nr];

		interval_tree_remove(&span->node, &fsi->used);
		WRITE_ONCE(fsi->used_pages,
			   fsi->used_pages - (span->len >> PAGE_SHIFT));
	}
}

/* One by one, so that ranges of the new map cannot overlap each other either */
static int famfs_take_spans(struct famfs_fs_info *fsi, struct famfs_map *map)
{
	u32 i;

	lockdep_assert_held(&fsi->maps_lock);

	for (i = 0; i < map->nr_spans; i++) {
		struct famfs_span *span = &map->spans[i];
		unsigned long start = span->offset >> PAGE_SHIFT;
		unsigned long last = start + (span->len >> PAGE_SHIFT) - 1;

		if (interval_tree_iter_first(&fsi->used, start, last)) {
			famfs_untake_spans(fsi, map, i);
			return -EBUSY;
		}
		span->node.start = start;
		span->node.last = last;
		interval_tree_insert(&span->node, &fsi->used);
		WRITE_ONCE(fsi->used_pages,
			   fsi->used_pages + (span->len >> PAGE_SHIFT));
	}
	return 0;
}

/* Bytes of the file that are on the device, up to its end. */
static u64 famfs_allocated(const struct famfs_map *map)
{
	u64 bytes = 0;
	u32 i;

	if (map->ext_type == FAMFS_EXTENT_INTERLEAVED)
		return map->file_size;

	for (i = 0; i < map->nr_spans; i++) {
		const struct famfs_span *span = &map->spans[i];

		if (span->file_offset < map->file_size)
			bytes += min(span->len,
				     map->file_size - span->file_offset);
	}
	return bytes;
}

static int famfs_attach_map_locked(struct inode *inode, struct famfs_map *map)
{
	struct famfs_fs_info *fsi = famfs_sb(inode->i_sb);
	int err;

	if (famfs_inode_map(inode))
		return -EEXIST;

	map->inode = inode;
	scoped_guard(mutex, &fsi->maps_lock) {
		if (fsi->dead)
			return -EIO;
		err = famfs_take_spans(fsi, map);
		if (err)
			return err;
		list_add_tail(&map->entry, &fsi->maps);
	}

	/*
	 * I/O and mmap are refused until the map is there, so nothing can be in
	 * the page cache when the file becomes a DAX file.
	 */
	inode_set_flags(inode, S_DAX, S_DAX);
	i_size_write(inode, map->file_size);
	inode->i_blocks = DIV_ROUND_UP(famfs_allocated(map), SECTOR_SIZE);
	/* Pairs with the acquire in famfs_inode_map() */
	smp_store_release(&inode->i_private, map);
	trace_famfs_map_create(inode, map);
	return 0;
}

/**
 * famfs_attach_map - turn an empty file into one with data
 * @inode: a regular file
 * @map: its map, checked; belongs to the inode on success
 *
 * Return: 0; -EEXIST if the file has a map; -EBUSY if a range is in use;
 * -EIO if the mount has lost its device.
 */
int famfs_attach_map(struct inode *inode, struct famfs_map *map)
{
	int err;

	inode_lock(inode);
	err = famfs_attach_map_locked(inode, map);
	inode_unlock(inode);
	return err;
}

/* Before eviction: keep failure callbacks away from the map and its inode. */
void famfs_retire_map(struct famfs_fs_info *fsi, struct famfs_map *map)
{
	guard(mutex)(&fsi->maps_lock);
	wait_event_cmd(fsi->maps_wait, !map->busy,
		       mutex_unlock(&fsi->maps_lock),
		       mutex_lock(&fsi->maps_lock));
	map->dying = true;
}

/*
 * Take the file's pages out of its mapping, once nobody has them pinned. The
 * file is mapped no more, or dead.
 */
void famfs_drop_pages(struct famfs_fs_info *fsi, struct famfs_map *map)
{
	u32 i;

	/*
	 * Never mapped, or the device was removed and took the pages along:
	 * these must not be looked at.
	 */
	if (mapping_empty(map->inode->i_mapping))
		return;

	for (i = 0; i < map->nr_spans; i++) {
		struct famfs_span *span = &map->spans[i];

		famfs_wait_unpinned(fsi->dax_dev,
				    (fsi->start + span->offset) >> PAGE_SHIFT,
				    span->len >> PAGE_SHIFT);
	}
	famfs_drop_dax_entries(map->inode);
}

/* After eviction: the ranges of the device are free for other files. */
void famfs_free_map(struct famfs_fs_info *fsi, struct famfs_map *map)
{
	scoped_guard(mutex, &fsi->maps_lock) {
		famfs_untake_spans(fsi, map, map->nr_spans);
		list_del(&map->entry);
	}
	wake_up_all(&fsi->maps_wait);
	kvfree(map);
}

static u64 famfs_extent_end(const struct famfs_span *span)
{
	return span->file_offset + span->len;
}

/* The extent with the byte at @pos, or the next one, or the number of all. */
static u32 famfs_extent_from(const struct famfs_map *map, u64 pos)
{
	u32 low = 0, high = map->nr_spans;

	while (low < high) {
		u32 mid = low + (high - low) / 2;

		if (famfs_extent_end(&map->spans[mid]) <= pos)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static void famfs_extent_or_hole(const struct famfs_map *map, u64 pos,
				 struct famfs_piece *piece)
{
	u32 i = famfs_extent_from(map, pos);
	const struct famfs_span *span = &map->spans[i];
	u64 end;

	if (i < map->nr_spans && span->file_offset <= pos) {
		piece->file_offset = span->file_offset;
		piece->dev_offset = span->offset;
		piece->len = span->len;
		piece->hole = false;
		return;
	}

	/* Whole pages, because that is what is asked for at a fault */
	end = i < map->nr_spans ? span->file_offset :
				  round_up(map->file_size, PAGE_SIZE);
	piece->file_offset = i ? famfs_extent_end(span - 1) : 0;
	piece->dev_offset = 0;
	piece->len = end - piece->file_offset;
	piece->hole = true;
}

/**
 * famfs_piece_at - find a byte of the file on the device
 * @map: the file's map
 * @pos: file offset, less than the file's size
 * @piece: the whole extent, chunk or hole that the byte is in
 */
void famfs_piece_at(const struct famfs_map *map, u64 pos,
		    struct famfs_piece *piece)
{
	u64 chunk, row;
	u32 strip;

	if (map->ext_type == FAMFS_EXTENT_SIMPLE) {
		famfs_extent_or_hole(map, pos, piece);
		return;
	}

	chunk = pos >> ilog2(map->chunk_size);
	row = div_u64_rem(chunk, map->nr_spans, &strip);
	piece->file_offset = chunk * map->chunk_size;
	piece->dev_offset = map->spans[strip].offset + row * map->chunk_size;
	piece->len = map->chunk_size;
	piece->hole = false;
}

/**
 * famfs_piece_of_span - find a byte of the device in the file
 * @span: the extent or strip that it is in
 * @dev_offset: offset on the device
 * @piece: from that byte to the end of the extent or chunk
 */
void famfs_piece_of_span(const struct famfs_span *span, u64 dev_offset,
			 struct famfs_piece *piece)
{
	const struct famfs_map *map = span->map;
	u64 within = dev_offset - span->offset;
	u64 row, rest;
	u32 strip;

	piece->dev_offset = dev_offset;
	piece->hole = false;
	if (map->ext_type == FAMFS_EXTENT_SIMPLE) {
		piece->file_offset = span->file_offset + within;
		piece->len = span->len - within;
		return;
	}

	row = within >> ilog2(map->chunk_size);
	rest = within & (map->chunk_size - 1);
	strip = span - map->spans;
	piece->file_offset = (row * map->nr_spans + strip) * map->chunk_size +
			     rest;
	piece->len = map->chunk_size - rest;
}
