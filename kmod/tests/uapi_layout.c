// SPDX-License-Identifier: GPL-2.0
/* The header has the sizes, offsets and numbers of the interface as it is. */
#include <stddef.h>

#include "../uapi/famfs_ioctl.h"
#include "tap.h"

static const struct {
	const char *what;
	unsigned long long got, want;
} facts[] = {
#define SIZE(type, want) { "sizeof(" #type ")", sizeof(struct type), want }
#define OFFSET(type, field, want) \
	{ #type "." #field, offsetof(struct type, field), want }
#define VALUE(name, want) { #name, name, want }
	VALUE(FAMFS_STATFS_MAGIC, 0x87b282fe),
	VALUE(FAMFS_PAGE, 4096),
	VALUE(FAMFS_ALIGN, 2097152),
	VALUE(FAMFS_MAX_EXTENTS, 16),
	VALUE(FAMFS_MAX_STRIPS, 16),
	VALUE(FAMFS_MAX_PIECES, 65536),
	VALUE(FAMFS_FILE_REGULAR, 0),
	VALUE(FAMFS_FILE_SUPERBLOCK, 1),
	VALUE(FAMFS_FILE_LOG, 2),
	VALUE(FAMFS_EXTENT_SIMPLE, 0),
	VALUE(FAMFS_EXTENT_INTERLEAVED, 1),

	SIZE(famfs_extent, 16),
	OFFSET(famfs_extent, offset, 0),
	OFFSET(famfs_extent, len, 8),

	SIZE(famfs_ioc_map, 56),
	OFFSET(famfs_ioc_map, extent_type, 0),
	OFFSET(famfs_ioc_map, file_type, 4),
	OFFSET(famfs_ioc_map, file_size, 8),
	OFFSET(famfs_ioc_map, ext_list_count, 16),
	OFFSET(famfs_ioc_map, ext_list, 24),

	SIZE(famfs_ioc_simple_extent, 24),
	OFFSET(famfs_ioc_simple_extent, devindex, 0),
	OFFSET(famfs_ioc_simple_extent, offset, 8),
	OFFSET(famfs_ioc_simple_extent, len, 16),

	SIZE(famfs_ioc_interleaved_extent, 32),
	OFFSET(famfs_ioc_interleaved_extent, nstrips, 0),
	OFFSET(famfs_ioc_interleaved_extent, chunk_size, 8),
	OFFSET(famfs_ioc_interleaved_extent, nbytes, 16),
	OFFSET(famfs_ioc_interleaved_extent, strips, 24),

	SIZE(famfs_ioc_fmap, 32),
	OFFSET(famfs_ioc_fmap, file_size, 0),
	OFFSET(famfs_ioc_fmap, file_type, 8),
	OFFSET(famfs_ioc_fmap, ext_type, 12),
	OFFSET(famfs_ioc_fmap, nextents, 16),
	OFFSET(famfs_ioc_fmap, reserved, 20),
	OFFSET(famfs_ioc_fmap, extents, 24),

	SIZE(famfs_ioc_get_fmap, 448),
	OFFSET(famfs_ioc_get_fmap, fmap, 0),
	OFFSET(famfs_ioc_get_fmap, simple, 32),
	OFFSET(famfs_ioc_get_fmap, interleaved, 32),
	OFFSET(famfs_ioc_get_fmap, strips, 64),

	SIZE(famfs_ioc_piece, 24),
	OFFSET(famfs_ioc_piece, file_offset, 0),
	OFFSET(famfs_ioc_piece, offset, 8),
	OFFSET(famfs_ioc_piece, len, 16),

	SIZE(famfs_ioc_pieces, 24),
	OFFSET(famfs_ioc_pieces, file_size, 0),
	OFFSET(famfs_ioc_pieces, count, 8),
	OFFSET(famfs_ioc_pieces, reserved, 12),
	OFFSET(famfs_ioc_pieces, pieces, 16),

	VALUE(FAMFSIOC_MAP_CREATE, 0x40387550),
	VALUE(FAMFSIOC_MAP_GET, 0x80387551),
	VALUE(FAMFSIOC_MAP_GETEXT, 0x80107552),
	VALUE(FAMFSIOC_NOP, 0x7553),
	VALUE(FAMFSIOC_MAP_CREATE_V2, 0x40207554),
	VALUE(FAMFSIOC_MAP_GET_V2, 0x81c07555),
	VALUE(FAMFSIOC_EDIT, 0x7556),
	VALUE(FAMFSIOC_MAP_PIECES, 0x40187557),
	VALUE(FAMFSIOC_GET_PIECES, 0xc0187558),
};

int main(void)
{
	tap_start();
	for (size_t i = 0; i < sizeof(facts) / sizeof(facts[0]); i++)
		is(facts[i].got, facts[i].want, facts[i].what);
	return tap_exit();
}
