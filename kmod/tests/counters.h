/* SPDX-License-Identifier: GPL-2.0 */
/* The fault counters in /sys/fs/famfs, and what makes them count. */
#ifndef _FAMFS_COUNTERS_H
#define _FAMFS_COUNTERS_H

#include "fixture.h"

#define COUNTERS "/sys/fs/famfs/"

static inline long long counter(const char *name)
{
	char path[128];
	long long value = -1;
	FILE *file;

	snprintf(path, sizeof(path), COUNTERS "%s", name);
	file = fopen(path, "r");
	if (!file || fscanf(file, "%lld", &value) != 1)
		bail("read %s", path);
	fclose(file);
	return value;
}

static inline int enable(const char *text)
{
	int fd = open(COUNTERS "fault_count_enable", O_WRONLY);
	int ret = write(fd, text, strlen(text));
	int error = errno;

	close(fd);
	errno = error;
	return ret;
}

static inline void read_all(int fd, uint64_t offset, uint64_t size)
{
	volatile char *mem = mmap(NULL, size, PROT_READ, MAP_SHARED, fd,
				  offset);

	if (mem == MAP_FAILED)
		bail("mmap");
	for (uint64_t i = 0; i < size; i += 4096)
		(void)mem[i];
	munmap((void *)mem, size);
}

static inline void expect(long long pmd, long long pte, const char *what)
{
	if (!ok(counter("pmd_fault_ct") == pmd &&
		counter("pte_fault_ct") == pte && !counter("pud_fault_ct"),
		"%s: %lld of 2 MiB, %lld of 4 KiB", what, pmd, pte))
		note("%lld of 2 MiB, %lld of 4 KiB, %lld of 1 GiB",
		     counter("pmd_fault_ct"), counter("pte_fault_ct"),
		     counter("pud_fault_ct"));
}

#endif
