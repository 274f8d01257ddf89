/* SPDX-License-Identifier: GPL-2.0 */
/*
 * famfs: differences between kernels. No other file looks at the version.
 *
 * The code is written for the newest kernel; this file gives older ones (7.2,
 * and 6.12, which has pmem devices only) the same interface.
 */
#ifndef _FAMFS_COMPAT_H
#define _FAMFS_COMPAT_H

#include <linux/dax.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/slab.h>
#include <linux/version.h>

/* Most releases in between changed an interface, and none of them was tried */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 12, 0) || \
	(LINUX_VERSION_CODE >= KERNEL_VERSION(6, 13, 0) && \
	 LINUX_VERSION_CODE < KERNEL_VERSION(7, 2, 0))
#error "famfs builds for Linux 6.12 and for Linux 7.2 and newer"
#endif

/* Exported by drivers/dax, but in no public header */
struct inode *dax_inode(struct dax_device *dax_dev);

/* Is there a driver that gives a devdax device the pages fs/dax.c needs? */
#define FAMFS_HAS_FSDEV (LINUX_VERSION_CODE >= KERNEL_VERSION(7, 2, 0))

#if FAMFS_HAS_FSDEV

/* What a file is asked to map: "struct famfs_vma" */
#define famfs_vma vm_area_desc
#define famfs_mmap_op mmap_prepare
#define FAMFS_MMAP_FILE_ARG

static inline struct file *famfs_vma_file(const struct vm_area_desc *desc)
{
	return desc->file;
}

static inline bool famfs_vma_supported(const struct vm_area_desc *desc,
				       const struct inode *inode,
				       struct dax_device *dax_dev)
{
	return daxdev_mapping_supported(desc, inode, dax_dev);
}

static inline void famfs_vma_setup(struct vm_area_desc *desc,
				   const struct vm_operations_struct *ops)
{
	desc->vm_ops = ops;
	vma_desc_set_flags(desc, VMA_HUGEPAGE_BIT);
}

static inline void famfs_pin_dentry(struct dentry *dentry, struct inode *inode)
{
	d_make_persistent(dentry, inode);
}

#define famfs_kill_pinned_super kill_anon_super

/* What ->mkdir returns */
#define famfs_mkdir_ret struct dentry *
#define famfs_mkdir_error(err) ERR_PTR(err)

static inline void famfs_wait_unpinned(struct dax_device *dax_dev,
				       pgoff_t pgoff, long nr_pages)
{
}

/* Unmap the file, wait for pinned pages, take the folios out of the mapping */
static inline void famfs_drop_dax_entries(struct inode *inode)
{
	dax_break_layout_final(inode);
}

#else

#include <linux/pfn_t.h>

#define famfs_vma vm_area_struct
#define famfs_mmap_op mmap
#define FAMFS_MMAP_FILE_ARG struct file *file,

static inline struct file *famfs_vma_file(const struct vm_area_struct *vma)
{
	return vma->vm_file;
}

static inline bool famfs_vma_supported(struct vm_area_struct *vma,
				       const struct inode *inode,
				       struct dax_device *dax_dev)
{
	return daxdev_mapping_supported(vma, dax_dev);
}

static inline void famfs_vma_setup(struct vm_area_struct *vma,
				   const struct vm_operations_struct *ops)
{
	vma->vm_ops = ops;
	vm_flags_set(vma, VM_HUGEPAGE);
}

/* The extra reference keeps the dentry; kill_litter_super() drops it */
static inline void famfs_pin_dentry(struct dentry *dentry, struct inode *inode)
{
	d_instantiate(dentry, inode);
	dget(dentry);
}

#define famfs_kill_pinned_super kill_litter_super

#define famfs_mkdir_ret int
#define famfs_mkdir_error(err) (err)

/*
 * Wait until nobody uses the pages of a file that is mapped no more. There is
 * dax_layout_busy_page(), but that overlooks files without a mapping. Idle DAX
 * pages have one reference on these kernels.
 */
static inline void famfs_wait_unpinned(struct dax_device *dax_dev,
				       pgoff_t pgoff, long nr_pages)
{
	struct page *page;
	pfn_t pfn;
	long i, got;
	int id;

	for (; nr_pages > 0; nr_pages -= got, pgoff += got) {
		/* In this mode an answer ends before bad blocks, or behind */
		id = dax_read_lock();
		got = dax_direct_access(dax_dev, pgoff, nr_pages,
					DAX_RECOVERY_WRITE, NULL, &pfn);
		dax_read_unlock(id);

		/* Without the device there are no pages, no entries to drop */
		if (got <= 0)
			return;
		for (i = 0; i < got; i++, pfn.val++) {
			page = pfn_t_to_page(pfn);
			wait_var_event(&page->_refcount,
				       page_ref_count(page) <= 1);
			cond_resched();
		}
	}
}

/* Take the pages, unmapped and not pinned, out of the mapping */
static inline void famfs_drop_dax_entries(struct inode *inode)
{
	truncate_inode_pages(inode->i_mapping, 0);
}

static inline struct dax_device *dax_dev_get(dev_t devt)
{
	return NULL;
}

static inline int fs_dax_get(struct dax_device *dax_dev, void *holder,
			     const struct dax_holder_operations *ops)
{
	return -EOPNOTSUPP;
}

#endif

/* The arguments of ->create */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 3, 0)
#define FAMFS_CREATE_ARGS struct mnt_idmap *idmap, struct inode *dir, \
			  struct dentry *dentry, umode_t mode
#else
#define FAMFS_CREATE_ARGS struct mnt_idmap *idmap, struct inode *dir, \
			  struct dentry *dentry, umode_t mode, bool excl
#endif

/* Some stable kernels have it too */
#ifndef kzalloc_obj
#define kzalloc_obj(obj, gfp) kzalloc(sizeof(obj), gfp)
#endif

#endif /* _FAMFS_COMPAT_H */
