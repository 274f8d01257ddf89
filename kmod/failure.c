// SPDX-License-Identifier: GPL-2.0
/*
 * famfs: loss of memory, a poisoned range or the whole device.
 *
 * Either one ends the mount: everything is unmapped, all further access
 * fails, and an unmount brings a fresh start. When the device goes, its
 * struct pages go with it as soon as the callback returns, so until then
 * every trace of them must be out of the mappings.
 *
 * The callback runs under the device lock of the dax device, which mount(2)
 * takes under s_umount. So it takes neither s_umount nor inode references,
 * which would have to be dropped under it; eviction waits for it instead.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/dax.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/pagemap.h>
#include <linux/srcu.h>
#include <linux/xarray.h>

#include "famfs.h"
#include "compat.h"
#include "trace.h"

/*
 * Held by calls that look up memory of the device, from before they check
 * that the mount is alive. A removal calls us back first, then marks the
 * device dead, and only then waits for drivers/dax's own readers. fsdev_dax
 * dereferences NULL if the device is marked in the middle of a lookup.
 */
DEFINE_SRCU(famfs_lookup_srcu);

/* Guards the list and what struct famfs_fs_info says about it */
DEFINE_MUTEX(famfs_holders_lock);
static LIST_HEAD(famfs_holders);

/**
 * famfs_add_holder - let failures of fsi->dax_dev find the mount
 * @fsi: the mount
 */
void famfs_add_holder(struct famfs_fs_info *fsi)
{
	lockdep_assert_held(&famfs_holders_lock);
	list_add(&fsi->holder_entry, &famfs_holders);
}

/**
 * famfs_drop_holder - end what famfs_add_holder() began
 * @fsi: the mount
 *
 * A callback that runs already goes on with its reference to @fsi.
 */
void famfs_drop_holder(struct famfs_fs_info *fsi)
{
	lockdep_assert_held(&famfs_holders_lock);
	list_del_init(&fsi->holder_entry);
}

/*
 * Found in our own list, because after the device was removed dax_holder()
 * may be anything: a rebound device uses the same dax_device again.
 */
static struct famfs_fs_info *famfs_get_holder(struct dax_device *dax_dev,
					      bool remove)
{
	struct famfs_fs_info *fsi;

	guard(mutex)(&famfs_holders_lock);
	list_for_each_entry(fsi, &famfs_holders, holder_entry) {
		if (fsi->dax_dev != dax_dev || fsi->removed)
			continue;
		fsi->removed = remove;
		refcount_inc(&fsi->ref);
		return fsi;
	}
	return NULL;
}

/*
 * Use @map and its inode without the lock held; eviction waits for the end.
 * Not for a map that is dying.
 */
static void famfs_begin_use(struct famfs_fs_info *fsi, struct famfs_map *map)
{
	lockdep_assert_held(&fsi->maps_lock);
	map->busy = true;
	mutex_unlock(&fsi->maps_lock);
}

static void famfs_end_use(struct famfs_fs_info *fsi, struct famfs_map *map)
{
	mutex_lock(&fsi->maps_lock);
	map->busy = false;
	wake_up_all(&fsi->maps_wait);
}

/* Signal processes that have any page of the file mapped: one per folio. */
static void famfs_kill_users(struct address_space *mapping, int mf_flags)
{
	unsigned long index = 0;

	while (xa_find(&mapping->i_pages, &index, ULONG_MAX, XA_PRESENT)) {
		int order = xa_get_order(&mapping->i_pages, index);

		mf_dax_kill_procs(mapping, index, 1, mf_flags);
		index = round_down(index, 1UL << order) + (1UL << order);
	}
}

/*
 * Unmap the file for good. The dead flag is set already: a fault that misses
 * it holds the invalidate lock, so what it maps is unmapped here.
 */
static void famfs_unmap_file(struct address_space *mapping)
{
	filemap_invalidate_lock(mapping);
	/* Private copies are not the device's memory and stay */
	unmap_mapping_range(mapping, 0, 0, 0);
	filemap_invalidate_unlock(mapping);
}

static void famfs_revoke_map(struct famfs_fs_info *fsi, struct famfs_map *map,
			     int mf_flags)
{
	struct address_space *mapping = map->inode->i_mapping;

	if (!(mf_flags & MF_MEM_PRE_REMOVE)) {
		famfs_unmap_file(mapping);
		return;
	}

	famfs_kill_users(mapping, mf_flags);
	famfs_unmap_file(mapping);
	/* Without the lock, or a fault could keep the owner of a pin waiting */
	famfs_drop_pages(fsi, map);
}

static bool famfs_any_dying(struct famfs_fs_info *fsi)
{
	struct famfs_map *map;

	lockdep_assert_held(&fsi->maps_lock);
	list_for_each_entry(map, &fsi->revoked, entry)
		if (map->dying)
			return true;
	return false;
}

/*
 * Do this to all maps. Only when the device is removed, those count too whose
 * inodes are being evicted: their pages must not outlive it either.
 */
static void famfs_revoke_all(struct famfs_fs_info *fsi, int mf_flags)
{
	struct famfs_map *map;

	guard(mutex)(&fsi->maps_lock);
	while ((map = list_first_entry_or_null(&fsi->maps, struct famfs_map,
					       entry))) {
		list_move_tail(&map->entry, &fsi->revoked);
		if (map->dying)
			continue;
		famfs_begin_use(fsi, map);
		famfs_revoke_map(fsi, map, mf_flags);
		famfs_end_use(fsi, map);
	}

	if (mf_flags & MF_MEM_PRE_REMOVE)
		wait_event_cmd(fsi->maps_wait, !famfs_any_dying(fsi),
			       mutex_unlock(&fsi->maps_lock),
			       mutex_lock(&fsi->maps_lock));

	/* A removal after poison goes over the same maps again */
	list_splice_init(&fsi->revoked, &fsi->maps);
}

static void famfs_set_dead(struct famfs_fs_info *fsi)
{
	guard(mutex)(&fsi->maps_lock);
	WRITE_ONCE(fsi->dead, true);
}

/* Signal processes that have the bytes [offset, end) of the span mapped. */
static int famfs_kill_span_users(const struct famfs_span *span, u64 offset,
				 u64 end, int mf_flags)
{
	struct address_space *mapping = span->map->inode->i_mapping;
	struct famfs_piece piece;
	u64 len;
	int err;

	for (; offset < end; offset += len) {
		famfs_piece_of_span(span, offset, &piece);
		len = min(piece.len, end - offset);
		err = mf_dax_kill_procs(mapping,
					piece.file_offset >> PAGE_SHIFT,
					len >> PAGE_SHIFT, mf_flags);
		if (err)
			return err;
	}
	return 0;
}

/* The bytes [offset, end) of the device, whole pages, are lost. */
static int famfs_memory_lost(struct famfs_fs_info *fsi, u64 offset, u64 end,
			     int mf_flags)
{
	struct interval_tree_node *node;
	bool was_dead;
	int err = 0;

	mutex_lock(&fsi->maps_lock);
	was_dead = fsi->dead;
	while (offset < end && !err) {
		struct famfs_span *span;
		u64 span_end;

		node = interval_tree_iter_first(&fsi->used,
						offset >> PAGE_SHIFT,
						(end - 1) >> PAGE_SHIFT);
		if (!node)
			break;

		/* Before the first signal, so that no fault maps it again */
		WRITE_ONCE(fsi->dead, true);
		span = container_of(node, struct famfs_span, node);
		span_end = span->offset + span->len;
		if (!span->map->dying) {
			famfs_begin_use(fsi, span->map);
			err = famfs_kill_span_users(span,
						    max(offset, span->offset),
						    min(end, span_end),
						    mf_flags);
			famfs_end_use(fsi, span->map);
		}
		offset = span_end;
	}
	mutex_unlock(&fsi->maps_lock);

	/* Memory that is in no file hurts nobody; a dead mount stays so */
	if (was_dead || !famfs_is_dead(fsi))
		return err;

	pr_err("%s: memory failure, mount disabled: unmount it\n", fsi->name);
	famfs_revoke_all(fsi, mf_flags);
	return err;
}

static int famfs_device_removed(struct famfs_fs_info *fsi, int mf_flags)
{
	famfs_set_dead(fsi);
	/* Faults are waited for when their file is unmapped */
	synchronize_srcu(&famfs_lookup_srcu);
	pr_warn("%s: device removed, mount disabled: unmount it\n", fsi->name);
	famfs_revoke_all(fsi, mf_flags);
	return 0;
}

static int famfs_handle_failure(struct famfs_fs_info *fsi, u64 offset, u64 len,
				int mf_flags)
{
	u64 end;

	guard(mutex)(&fsi->failure_lock);
	if (mf_flags & MF_MEM_PRE_REMOVE)
		return famfs_device_removed(fsi, mf_flags);

	/* From bytes of the dax device to pages of the partition */
	if (check_add_overflow(offset, len, &end))
		end = U64_MAX;
	end = min(end, fsi->start + fsi->size);
	offset = max(offset, fsi->start);
	if (offset >= end)
		return -ENXIO;
	offset = round_down(offset - fsi->start, PAGE_SIZE);
	end = round_up(end - fsi->start, PAGE_SIZE);
	return famfs_memory_lost(fsi, offset, end, mf_flags);
}

static int famfs_notify_failure(struct dax_device *dax_dev, u64 offset, u64 len,
				int mf_flags)
{
	struct famfs_fs_info *fsi;
	int err;

	fsi = famfs_get_holder(dax_dev, mf_flags & MF_MEM_PRE_REMOVE);
	if (!fsi)
		return -EOPNOTSUPP;

	err = famfs_handle_failure(fsi, offset, len, mf_flags);
	trace_famfs_notify_failure(fsi, offset, len, mf_flags, err);
	famfs_put_fs_info(fsi);
	return err;
}

const struct dax_holder_operations famfs_holder_ops = {
	.notify_failure = famfs_notify_failure,
};
