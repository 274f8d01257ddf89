/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the module holds: references and memory. A test takes a measure before
 * and after, both without a mount.
 *
 * Kernels with CONFIG_MEM_ALLOC_PROFILING, as the debug kernel is, count the
 * allocations of each line of code: ours have to be exactly as many as before.
 * On others all that is left is the memory of all slabs that the kernel cannot
 * shrink, which moves by 1 MiB or so on its own.
 */
#ifndef _FAMFS_LEAK_H
#define _FAMFS_LEAK_H

#include "fixture.h"

#define ALLOCATIONS "/proc/allocinfo"
#define SLAB_NOISE (8 * MIB)

struct held {
	/* -1 if the kernel does not count them */
	long long allocations;
	uint64_t slab;
};

static inline int module_references(void)
{
	FILE *file = fopen("/sys/module/famfs/refcnt", "r");
	int references;

	if (!file || fscanf(file, "%d", &references) != 1)
		bail("/sys/module/famfs/refcnt");
	fclose(file);
	return references;
}

/* Live allocations by the module's code */
static inline long long module_allocations(void)
{
	FILE *file = fopen(ALLOCATIONS, "r");
	long long bytes, calls, sum = 0;
	int lines = 0;
	char line[512];

	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file)) {
		if (!strstr(line, "[famfs]"))
			continue;
		lines++;
		if (sscanf(line, "%lld %lld", &bytes, &calls) != 2)
			bail("%s: %s", ALLOCATIONS, line);
		sum += calls;
	}
	fclose(file);
	if (!lines)
		bail("%s: no line for famfs", ALLOCATIONS);
	return sum;
}

static inline uint64_t unreclaimable_slab(void)
{
	FILE *file = fopen("/proc/meminfo", "r");
	unsigned long long kib = 0;
	char line[128];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "SUnreclaim: %llu", &kib) == 1)
			break;
	if (!kib)
		bail("no SUnreclaim in /proc/meminfo");
	fclose(file);
	return kib * KIB;
}

static inline struct held held_by_module(void)
{
	return (struct held) {
		.allocations = module_allocations(),
		.slab = unreclaimable_slab(),
	};
}

/* Two tests: the module, which is not mounted, holds what it held before. */
static inline void expect_held(const struct held *before)
{
	struct held now = held_by_module();

	is(module_references(), 0, "nothing holds the module");
	if (before->allocations >= 0)
		is(now.allocations, before->allocations,
		   "every allocation of the module is free again");
	else if (!ok(now.slab < before->slab + SLAB_NOISE,
		     "no kernel memory is lost"))
		note("%llu bytes more",
		     (unsigned long long)(now.slab - before->slab));
}

#endif /* _FAMFS_LEAK_H */
