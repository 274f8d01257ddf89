// SPDX-License-Identifier: GPL-2.0
/*
 * famfs: fault counters in /sys/fs/famfs, for scripts that look there.
 *
 * The tracepoints of fs/dax.c tell the same and more. The counters are off
 * until somebody asks for them, and then cost one atomic add a fault; while
 * they are off, the fault path has a no-op where the call would be.
 */
#include <linux/atomic.h>
#include <linux/fs.h>
#include <linux/kobject.h>
#include <linux/kstrtox.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/sysfs.h>

#include "famfs.h"

DEFINE_STATIC_KEY_FALSE(famfs_count_faults);

static atomic64_t famfs_pte_faults = ATOMIC64_INIT(0);
static atomic64_t famfs_pmd_faults = ATOMIC64_INIT(0);
static atomic64_t famfs_pud_faults = ATOMIC64_INIT(0);

/* A static key warns when it is enabled and disabled at the same time */
static DEFINE_MUTEX(famfs_counters_lock);
static struct kobject *famfs_kobj;

/**
 * famfs_count_fault - count a fault that is over
 * @order: the size that was asked for: of 2^order pages
 * @ret: what came of it; only what was mapped or copied counts
 */
void famfs_count_fault(unsigned int order, vm_fault_t ret)
{
	if (!(ret & (VM_FAULT_NOPAGE | VM_FAULT_DONE_COW)))
		return;

	if (order == PUD_ORDER)
		atomic64_inc(&famfs_pud_faults);
	else if (order == PMD_ORDER)
		atomic64_inc(&famfs_pmd_faults);
	else
		atomic64_inc(&famfs_pte_faults);
}

static ssize_t fault_count_enable_show(struct kobject *kobj,
				       struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%d\n",
			  static_key_enabled(&famfs_count_faults));
}

/* Counts begin at 0 each time they are switched on, and stay when off */
static ssize_t fault_count_enable_store(struct kobject *kobj,
					struct kobj_attribute *attr,
					const char *buf, size_t count)
{
	bool enable;
	int err;

	err = kstrtobool(buf, &enable);
	if (err)
		return err;

	guard(mutex)(&famfs_counters_lock);
	if (!enable) {
		static_branch_disable(&famfs_count_faults);
		return count;
	}
	atomic64_set(&famfs_pte_faults, 0);
	atomic64_set(&famfs_pmd_faults, 0);
	atomic64_set(&famfs_pud_faults, 0);
	static_branch_enable(&famfs_count_faults);
	return count;
}

static ssize_t pte_fault_ct_show(struct kobject *kobj,
				 struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%lld\n", atomic64_read(&famfs_pte_faults));
}

static ssize_t pmd_fault_ct_show(struct kobject *kobj,
				 struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%lld\n", atomic64_read(&famfs_pmd_faults));
}

static ssize_t pud_fault_ct_show(struct kobject *kobj,
				 struct kobj_attribute *attr, char *buf)
{
	return sysfs_emit(buf, "%lld\n", atomic64_read(&famfs_pud_faults));
}

/* The names are an interface: scripts of existing user space have them */
static struct kobj_attribute famfs_enable_attr = __ATTR_RW(fault_count_enable);
static struct kobj_attribute famfs_pte_attr = __ATTR_RO(pte_fault_ct);
static struct kobj_attribute famfs_pmd_attr = __ATTR_RO(pmd_fault_ct);
static struct kobj_attribute famfs_pud_attr = __ATTR_RO(pud_fault_ct);

static struct attribute *famfs_counter_attrs[] = {
	&famfs_enable_attr.attr,
	&famfs_pte_attr.attr,
	&famfs_pmd_attr.attr,
	&famfs_pud_attr.attr,
	NULL,
};

static const struct attribute_group famfs_counter_group = {
	.attrs = famfs_counter_attrs,
};

int __init famfs_counters_init(void)
{
	int err;

	famfs_kobj = kobject_create_and_add("famfs", fs_kobj);
	if (!famfs_kobj)
		return -ENOMEM;

	err = sysfs_create_group(famfs_kobj, &famfs_counter_group);
	if (err)
		kobject_put(famfs_kobj);
	return err;
}

/* Waits for whoever reads or writes the files */
void famfs_counters_exit(void)
{
	kobject_put(famfs_kobj);
}
