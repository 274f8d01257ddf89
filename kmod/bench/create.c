// SPDX-License-Identifier: GPL-2.0
/*
 * Creates COUNT files in a directory, and removes them again. With an offset,
 * each is given a map of 2 MiB of the device, one after the other from there.
 */
#include <sys/stat.h>

#include "../tests/map.h"
#include "bench.h"

#define PASSES 3

static void create(uint64_t i, const uint64_t *offset)
{
	struct famfs_ioc_simple_extent extent = { .len = PMD };
	char name[32];
	int fd;

	snprintf(name, sizeof(name), "%llu", (unsigned long long)i);
	fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0644);
	if (fd < 0)
		die("create %s", name);
	if (offset) {
		extent.offset = *offset + i * PMD;
		if (map_simple(fd, PMD, 1, &extent))
			die("map %s", name);
	}
	close(fd);
}

static void remove_all(uint64_t count)
{
	char name[32];
	uint64_t i;

	for (i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "%llu", (unsigned long long)i);
		if (unlink(name))
			die("unlink %s", name);
	}
}

int main(int argc, char **argv)
{
	uint64_t count, offset, i, start, best = 0;
	int pass;

	if (argc != 3 && argc != 4)
		usage("DIRECTORY COUNT [OFFSET]");
	if (mkdir(argv[1], 0755) && errno != EEXIST)
		die("mkdir %s", argv[1]);
	if (chdir(argv[1]))
		die("chdir %s", argv[1]);
	count = number(argv[2]);
	offset = argc == 4 ? number(argv[3]) : 0;

	for (pass = 0; pass < PASSES; pass++) {
		start = now();
		for (i = 0; i < count; i++)
			create(i, argc == 4 ? &offset : NULL);
		keep_best(&best, start);
		remove_all(count);
	}
	report(best);
	return 0;
}
