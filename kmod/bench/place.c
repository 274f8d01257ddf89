// SPDX-License-Identifier: GPL-2.0
/*
 * Makes a famfs file at a place of the device: SIZE bytes in COUNT extents or
 * strips of equal length. They are in file order but start with the last, so
 * that no two are neighbours in both.
 */
#include "../tests/map.h"
#include "bench.h"

int main(int argc, char **argv)
{
	struct famfs_ioc_simple_extent ranges[FAMFS_MAX_EXTENTS] = { 0 };
	uint64_t size, offset, count, i;
	int fd, err;

	if (argc != 6)
		usage("extents|strips PATH SIZE OFFSET COUNT");
	size = number(argv[3]);
	offset = number(argv[4]);
	count = number(argv[5]);
	if (!count || count > FAMFS_MAX_EXTENTS || size % (count * PMD)) {
		errno = EINVAL;
		die("%s parts of %s bytes", argv[5], argv[3]);
	}
	for (i = 0; i < count; i++) {
		ranges[i].len = size / count;
		ranges[i].offset = offset + (count - 1 - i) * ranges[i].len;
	}

	fd = open(argv[2], O_RDWR | O_CREAT | O_EXCL, 0644);
	if (fd < 0)
		die("create %s", argv[2]);
	if (strcmp(argv[1], "strips"))
		err = map_simple(fd, size, count, ranges);
	else
		err = map_interleaved(fd, size, PMD, count, ranges);
	if (err)
		die("map %s", argv[2]);
	return 0;
}
