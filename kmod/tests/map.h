/* SPDX-License-Identifier: GPL-2.0 */
/* Gives a file its famfs map: 0, or -1 and errno */
#ifndef _FAMFS_MAP_H
#define _FAMFS_MAP_H

#include <stdint.h>
#include <sys/ioctl.h>

#include "../uapi/famfs_ioctl.h"

static inline int map_simple(int fd, uint64_t size, uint32_t count,
			     const struct famfs_ioc_simple_extent *extents)
{
	struct famfs_ioc_fmap fmap = {
		.file_size = size,
		.ext_type = FAMFS_EXTENT_SIMPLE,
		.nextents = count,
		.extents = (uintptr_t)extents,
	};

	return ioctl(fd, FAMFSIOC_MAP_CREATE_V2, &fmap);
}

static inline int map_interleaved(int fd, uint64_t size, uint64_t chunk_size,
				  uint64_t nstrips,
				  const struct famfs_ioc_simple_extent *strips)
{
	struct famfs_ioc_interleaved_extent ie = {
		.nstrips = nstrips,
		.chunk_size = chunk_size,
		.nbytes = size,
		.strips = (uintptr_t)strips,
	};
	struct famfs_ioc_fmap fmap = {
		.file_size = size,
		.ext_type = FAMFS_EXTENT_INTERLEAVED,
		.nextents = 1,
		.extents = (uintptr_t)&ie,
	};

	return ioctl(fd, FAMFSIOC_MAP_CREATE_V2, &fmap);
}

static inline int map_pieces(int fd, uint64_t size, uint32_t count,
			     const struct famfs_ioc_piece *list)
{
	struct famfs_ioc_pieces pieces = {
		.file_size = size,
		.count = count,
		.pieces = (uintptr_t)list,
	};

	return ioctl(fd, FAMFSIOC_MAP_PIECES, &pieces);
}

#endif /* _FAMFS_MAP_H */
