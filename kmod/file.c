// SPDX-License-Identifier: GPL-2.0
/*
 * famfs: reading, writing and mapping files, through fs/dax.c but for reads
 * within one extent.
 *
 * A file's extents never change, so the lookup takes no lock. What the locks
 * here are for: the inode lock because dax_iomap_rw() asks for it, and the
 * invalidate lock so that no fault can slip past a loss of the device.
 */
#include <linux/blkdev.h>
#include <linux/dax.h>
#include <linux/fs.h>
#include <linux/huge_mm.h>
#include <linux/iomap.h>
#include <linux/mount.h>
#include <linux/pagemap.h>
#include <linux/splice.h>
#include <linux/uio.h>
#include <linux/writeback.h>

#include "famfs.h"
#include "compat.h"

static int famfs_iomap_begin(struct inode *inode, loff_t pos, loff_t length,
			     unsigned int flags, struct iomap *iomap,
			     struct iomap *srcmap)
{
	struct famfs_fs_info *fsi = famfs_sb(inode->i_sb);
	struct famfs_map *map = famfs_inode_map(inode);
	struct famfs_piece piece;

	if (famfs_is_dead(fsi) || pos >= map->file_size)
		return -EIO;

	famfs_piece_at(map, pos, &piece);
	iomap->flags = 0;
	iomap->dax_dev = fsi->dax_dev;
	iomap->offset = piece.file_offset;
	iomap->length = piece.len;
	if (!piece.hole) {
		iomap->type = IOMAP_MAPPED;
		iomap->addr = fsi->start + piece.dev_offset;
		return 0;
	}

	/* Space is never allocated on write */
	if (flags & IOMAP_WRITE)
		return -ENOSPC;
	iomap->type = IOMAP_HOLE;
	iomap->addr = IOMAP_NULL_ADDR;
	return 0;
}

static const struct iomap_ops famfs_iomap_ops = {
	.iomap_begin = famfs_iomap_begin,
};

/*
 * The removal of the device waits for the whole call, so that none which found
 * the mount alive goes on with what is bound next.
 */
static ssize_t famfs_iomap_rw(struct kiocb *iocb, struct iov_iter *iter)
{
	int lookup = srcu_read_lock(&famfs_lookup_srcu);
	ssize_t ret = dax_iomap_rw(iocb, iter, &famfs_iomap_ops);

	srcu_read_unlock(&famfs_lookup_srcu, lookup);
	return ret;
}

/*
 * Read what lies in one extent or chunk, as small files do as a whole, without
 * the iterator of fs/iomap. The inode lock has nothing to guard here: extents
 * and size are constant, and the open file keeps them. The copy ends before
 * bad memory, as that of fs/dax.c does.
 *
 * Return: bytes read; 0 if famfs_read_pieces() has to look at it.
 */
static size_t famfs_read_piece(struct famfs_fs_info *fsi,
			       const struct famfs_map *map, u64 pos,
			       struct iov_iter *to)
{
	size_t count = iov_iter_count(to), copied = 0;
	struct famfs_piece piece;
	int lookup, id;
	pgoff_t pgoff;
	void *kaddr;
	long pages;

	famfs_piece_at(map, pos, &piece);
	pos -= piece.file_offset;
	if (piece.hole || count > piece.len - pos)
		return 0;
	pgoff = (fsi->start + piece.dev_offset + pos) >> PAGE_SHIFT;
	pages = PFN_UP(offset_in_page(pos) + count);

	/* The one for the removal, as in famfs_iomap_rw(), the other for dax */
	lookup = srcu_read_lock(&famfs_lookup_srcu);
	id = dax_read_lock();
	if (!famfs_is_dead(fsi) &&
	    dax_direct_access(fsi->dax_dev, pgoff, pages, DAX_ACCESS, &kaddr,
			      NULL) == pages)
		copied = _copy_mc_to_iter(kaddr + offset_in_page(pos), count,
					  to);
	dax_read_unlock(id);
	srcu_read_unlock(&famfs_lookup_srcu, lookup);
	return copied;
}

/* Several extents, holes, and whatever ends in an error. */
static ssize_t famfs_read_pieces(struct kiocb *iocb, struct iov_iter *to)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	ssize_t ret;

	if (iocb->ki_flags & IOCB_NOWAIT) {
		if (!inode_trylock_shared(inode))
			return -EAGAIN;
	} else {
		inode_lock_shared(inode);
	}
	ret = famfs_iomap_rw(iocb, to);
	inode_unlock_shared(inode);
	return ret;
}

static ssize_t famfs_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	struct famfs_map *map = famfs_inode_map(inode);
	ssize_t ret;

	if (!map)
		return -ENODATA;
	if (!iov_iter_count(to) || iocb->ki_pos >= map->file_size)
		return 0;

	iov_iter_truncate(to, map->file_size - iocb->ki_pos);
	ret = famfs_read_piece(famfs_sb(inode->i_sb), map, iocb->ki_pos, to);
	if (ret)
		iocb->ki_pos += ret;
	else
		ret = famfs_read_pieces(iocb, to);

	file_accessed(iocb->ki_filp);
	return ret;
}

static ssize_t famfs_write_locked(struct kiocb *iocb, struct iov_iter *from)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	loff_t size = i_size_read(inode);
	struct famfs_piece piece;
	ssize_t ret;

	ret = generic_write_checks(iocb, from);
	if (ret <= 0)
		return ret;

	/* Before the times change; a hole that is met later ends the write */
	if (iocb->ki_pos >= size)
		return -ENOSPC;
	famfs_piece_at(famfs_inode_map(inode), iocb->ki_pos, &piece);
	if (piece.hole)
		return -ENOSPC;
	iov_iter_truncate(from, size - iocb->ki_pos);

	ret = kiocb_modified(iocb);
	if (ret)
		return ret;
	return famfs_iomap_rw(iocb, from);
}

static ssize_t famfs_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct inode *inode = file_inode(iocb->ki_filp);
	ssize_t ret;

	if (!famfs_inode_map(inode))
		return -ENODATA;

	if (iocb->ki_flags & IOCB_NOWAIT) {
		if (!inode_trylock(inode))
			return -EAGAIN;
	} else {
		inode_lock(inode);
	}
	ret = famfs_write_locked(iocb, from);
	inode_unlock(inode);

	if (ret > 0)
		ret = generic_write_sync(iocb, ret);
	return ret;
}

static vm_fault_t famfs_huge_fault(struct vm_fault *vmf, unsigned int order)
{
	struct vm_area_struct *vma = vmf->vma;
	struct inode *inode = file_inode(vma->vm_file);
	bool write = (vmf->flags & FAULT_FLAG_WRITE) &&
		     (vma->vm_flags & VM_SHARED);
	vm_fault_t ret = VM_FAULT_SIGBUS;

	if (write)
		sb_start_pagefault(inode->i_sb);
	filemap_invalidate_lock_shared(inode->i_mapping);
	/*
	 * After a loss nothing may enter the mapping, not even the empty entry
	 * of a fault that fails. No pfn: that is for file systems with metadata
	 * to commit first.
	 */
	if (!famfs_is_dead(famfs_sb(inode->i_sb)))
		ret = dax_iomap_fault(vmf, order, NULL, NULL, &famfs_iomap_ops);
	filemap_invalidate_unlock_shared(inode->i_mapping);
	if (write) {
		/* Not for a store that is refused, or tried again smaller */
		if (!(ret & (VM_FAULT_ERROR | VM_FAULT_FALLBACK)))
			file_update_time(vma->vm_file);
		sb_end_pagefault(inode->i_sb);
	}
	if (static_branch_unlikely(&famfs_count_faults))
		famfs_count_fault(order, ret);
	return ret;
}

static vm_fault_t famfs_fault(struct vm_fault *vmf)
{
	return famfs_huge_fault(vmf, 0);
}

/* ->map_pages is left out: it maps page cache folios, of which DAX has none */
static const struct vm_operations_struct famfs_vm_operations = {
	.fault = famfs_fault,
	.huge_fault = famfs_huge_fault,
	.page_mkwrite = famfs_fault,
	.pfn_mkwrite = famfs_fault,
};

static int famfs_mmap(FAMFS_MMAP_FILE_ARG struct famfs_vma *vma)
{
	struct inode *inode = file_inode(famfs_vma_file(vma));
	struct famfs_fs_info *fsi = famfs_sb(inode->i_sb);

	if (!famfs_inode_map(inode))
		return -ENODATA;
	if (famfs_is_dead(fsi))
		return -EIO;
	if (!famfs_vma_supported(vma, inode, fsi->dax_dev))
		return -EOPNOTSUPP;

	file_accessed(famfs_vma_file(vma));
	famfs_vma_setup(vma, &famfs_vm_operations);
	return 0;
}

/* From the caches of the processors to the device, which has its own. */
static int famfs_write_back(struct inode *inode, loff_t start, loff_t end)
{
	struct writeback_control wbc = {
		.sync_mode = WB_SYNC_ALL,
		.nr_to_write = LONG_MAX,
		.range_start = start,
		.range_end = end,
	};

	return dax_writeback_mapping_range(inode->i_mapping,
					   famfs_sb(inode->i_sb)->dax_dev,
					   &wbc);
}

/*
 * A devdax device is memory and has nothing to flush. Behind a pmem device
 * there can be caches, of CPU and host, and a flush that can fail.
 */
static int famfs_fsync(struct file *file, loff_t start, loff_t end,
		       int datasync)
{
	struct inode *inode = file_inode(file);
	struct famfs_fs_info *fsi = famfs_sb(inode->i_sb);
	int err;

	if (famfs_is_dead(fsi))
		return -EIO;
	if (fsi->is_char || !famfs_inode_map(inode))
		return 0;

	err = famfs_write_back(inode, start, end);
	if (err)
		return err;
	return blkdev_issue_flush(file_bdev(fsi->bdev_file));
}

/**
 * famfs_sync_fs - do what fsync(2) does for all files
 * @sb: the mount
 * @wait: unless set, there is another call to come that is
 *
 * The VFS does not write back by itself what has no backing device to be
 * accounted to.
 *
 * Return: 0 or the first error.
 */
int famfs_sync_fs(struct super_block *sb, int wait)
{
	struct famfs_fs_info *fsi = famfs_sb(sb);
	struct famfs_map *map;
	int err;

	if (!wait)
		return 0;

	scoped_guard(mutex, &fsi->maps_lock) {
		/* As fsync(2) says too; unmounting does not mind */
		if (fsi->dead)
			return -EIO;
		if (fsi->is_char)
			return 0;
		list_for_each_entry(map, &fsi->maps, entry) {
			err = famfs_write_back(map->inode, 0, LLONG_MAX);
			if (err)
				return err;
		}
	}
	return blkdev_issue_flush(file_bdev(fsi->bdev_file));
}

static loff_t famfs_llseek(struct file *file, loff_t offset, int whence)
{
	struct inode *inode = file_inode(file);

	switch (whence) {
	case SEEK_HOLE:
		offset = iomap_seek_hole(inode, offset, &famfs_iomap_ops);
		break;
	case SEEK_DATA:
		offset = iomap_seek_data(inode, offset, &famfs_iomap_ops);
		break;
	default:
		return generic_file_llseek(file, offset, whence);
	}
	if (offset < 0)
		return offset;
	return vfs_setpos(file, offset, inode->i_sb->s_maxbytes);
}

/*
 * The bits may come from another machine. Mounts of the tools are nosuid,
 * where they mean nothing, and no flag of the super block makes all mounts so.
 */
static bool famfs_gives_privileges(const struct inode *inode,
				   const struct file *file)
{
	return (file->f_flags & __FMODE_EXEC) && is_sxid(inode->i_mode) &&
	       !(file->f_path.mnt->mnt_flags & MNT_NOSUID);
}

static int famfs_open(struct inode *inode, struct file *file)
{
	if (famfs_is_dead(famfs_sb(inode->i_sb)))
		return -EIO;
	if (famfs_gives_privileges(inode, file))
		return -EACCES;

	file->f_mode |= FMODE_CAN_ODIRECT | FMODE_NOWAIT;
	return generic_file_open(inode, file);
}

const struct address_space_operations famfs_aops = {
	.dirty_folio = noop_dirty_folio,
};

const struct file_operations famfs_file_operations = {
	.open = famfs_open,
	.llseek = famfs_llseek,
	.read_iter = famfs_read_iter,
	.write_iter = famfs_write_iter,
	.splice_read = copy_splice_read,
	.splice_write = iter_file_splice_write,
	.unlocked_ioctl = famfs_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.famfs_mmap_op = famfs_mmap,
	.get_unmapped_area = thp_get_unmapped_area,
	.fsync = famfs_fsync,
	.fop_flags = FOP_MMAP_SYNC,
};
