/* SPDX-License-Identifier: GPL-2.0 */
/* Gives a file a famfs map */
#ifndef _FAMFS_BENCH_MAP_H
#define _FAMFS_BENCH_MAP_H

#include <sys/ioctl.h>

#include "../uapi/famfs_ioctl.h"
#include "bench.h"

static inline void map_extents(int fd, uint64_t size, uint32_t count,
			       const struct famfs_ioc_simple_extent *extents)
{
	struct famfs_ioc_fmap fmap = {
		.file_size = size,
		.ext_type = FAMFS_EXTENT_SIMPLE,
		.nextents = count,
		.extents = (uintptr_t)extents,
	};

	if (ioctl(fd, FAMFSIOC_MAP_CREATE_V2, &fmap))
		die("map %u extents", count);
}

static inline void map_strips(int fd, uint64_t size, uint32_t count,
			      const struct famfs_ioc_simple_extent *strips)
{
	struct famfs_ioc_interleaved_extent ie = {
		.nstrips = count,
		.chunk_size = PMD,
		.nbytes = size,
		.strips = (uintptr_t)strips,
	};
	struct famfs_ioc_fmap fmap = {
		.file_size = size,
		.ext_type = FAMFS_EXTENT_INTERLEAVED,
		.nextents = 1,
		.extents = (uintptr_t)&ie,
	};

	if (ioctl(fd, FAMFSIOC_MAP_CREATE_V2, &fmap))
		die("map %u strips", count);
}

#endif /* _FAMFS_BENCH_MAP_H */
