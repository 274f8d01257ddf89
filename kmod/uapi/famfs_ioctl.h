/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * famfs: the ioctl interface between the file system and its user space.
 *
 * A famfs file is created empty. One MAP_CREATE ioctl then attaches, once and
 * for good, the list of device ranges that hold its bytes.
 *
 * All offsets and lengths are bytes. Every structure has the same layout for
 * 32-bit and 64-bit callers.
 */
#ifndef _UAPI_FAMFS_IOCTL_H
#define _UAPI_FAMFS_IOCTL_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* statfs(2) f_type of a mounted famfs */
#define FAMFS_STATFS_MAGIC 0x87b282feU

/*
 * The unit of device offsets and lengths is a page: this, or the kernel's
 * page size where that is larger. What one PMD maps on x86-64 is the unit of
 * interleaved maps, and of what is mapped by 2 MiB.
 */
#define FAMFS_PAGE 0x1000ULL
#define FAMFS_ALIGN 0x200000ULL

/* Room in the caller's structures, and what the media format can hold */
#define FAMFS_V42_MAX_EXTENTS 2
#define FAMFS_MAX_EXTENTS 16
#define FAMFS_MAX_STRIPS 16
/* A list of 1.5 MiB, and 5 MiB of kernel memory for one file */
#define FAMFS_MAX_PIECES 65536

/* The one file allowed to cover device offset 0 is the superblock */
enum famfs_file_type {
	FAMFS_FILE_REGULAR = 0,
	FAMFS_FILE_SUPERBLOCK = 1,
	FAMFS_FILE_LOG = 2,
};

enum famfs_extent_type {
	FAMFS_EXTENT_SIMPLE = 0,
	FAMFS_EXTENT_INTERLEAVED = 1,
};

/*
 * ABI 42: at most two simple extents, in the structure itself.
 */

/**
 * struct famfs_extent - a range of the mounted device
 * @offset: first byte, a multiple of FAMFS_PAGE
 * @len: a multiple of FAMFS_PAGE, not 0
 */
struct famfs_extent {
	__u64 offset;
	__u64 len;
};

/**
 * struct famfs_ioc_map - a file's map, for MAP_CREATE and MAP_GET
 * @extent_type: enum famfs_extent_type; MAP_CREATE takes only simple
 * @file_type: enum famfs_file_type
 * @file_size: bytes, from 1 to the sum of the extents
 * @ext_list_count: extents of the file; MAP_GET may report more than fit
 * @ext_list: the first extents; MAP_GETEXT returns all
 */
struct famfs_ioc_map {
	__u32 extent_type;
	__u32 file_type;
	__u64 file_size;
	__u64 ext_list_count;
	struct famfs_extent ext_list[FAMFS_V42_MAX_EXTENTS];
};

/*
 * ABI 43: lists behind pointers, several devices, interleaving.
 */

/**
 * struct famfs_ioc_simple_extent - a range of one of the devices
 * @devindex: 0, the mounted device; others are refused
 * @offset: first byte, a multiple of FAMFS_PAGE, for a strip of FAMFS_ALIGN
 * @len: likewise, not 0
 */
struct famfs_ioc_simple_extent {
	__u64 devindex;
	__u64 offset;
	__u64 len;
};

/**
 * struct famfs_ioc_interleaved_extent - file bytes dealt out over strips
 * @nstrips: from 1 to FAMFS_MAX_STRIPS
 * @chunk_size: a power of two, at least FAMFS_ALIGN
 * @nbytes: file bytes covered, at least the file's size
 * @strips: user pointer to @nstrips struct famfs_ioc_simple_extent
 *
 * Chunk n of the file is chunk n / nstrips of strip n % nstrips.
 */
struct famfs_ioc_interleaved_extent {
	__u64 nstrips;
	__u64 chunk_size;
	__u64 nbytes;
	__u64 strips;
};

/**
 * struct famfs_ioc_fmap - a file's map, for MAP_CREATE_V2
 * @file_size: bytes, from 1 to what the extents hold
 * @file_type: enum famfs_file_type
 * @ext_type: enum famfs_extent_type
 * @nextents: 1 to FAMFS_MAX_EXTENTS simple extents, or 1 interleaved
 * @reserved: ignored; existing user space leaves it unset
 * @extents: user pointer to the list, of the structure for @ext_type
 */
struct famfs_ioc_fmap {
	__u64 file_size;
	__u32 file_type;
	__u32 ext_type;
	__u32 nextents;
	__u32 reserved;
	__u64 extents;
};

/**
 * struct famfs_ioc_get_fmap - a file's map, from MAP_GET_V2
 * @fmap: as given to MAP_CREATE_V2; pointers are 0
 * @simple: the extents, when @fmap.ext_type is simple
 * @interleaved: the interleaved extent otherwise
 * @strips: its strips
 */
struct famfs_ioc_get_fmap {
	struct famfs_ioc_fmap fmap;
	union {
		struct famfs_ioc_simple_extent simple[FAMFS_MAX_EXTENTS];
		struct {
			struct famfs_ioc_interleaved_extent interleaved;
			struct famfs_ioc_simple_extent strips[FAMFS_MAX_STRIPS];
		};
	};
};

/*
 * Ours: regular files of any number of pieces, with holes, and empty ones.
 */

/**
 * struct famfs_ioc_piece - bytes of a file and the range of the device
 * @file_offset: of the first byte, a multiple of FAMFS_PAGE
 * @offset: of the same byte on the mounted device, a multiple of FAMFS_PAGE
 * @len: a multiple of FAMFS_PAGE, not 0
 */
struct famfs_ioc_piece {
	__u64 file_offset;
	__u64 offset;
	__u64 len;
};

/**
 * struct famfs_ioc_pieces - a file's map, for MAP_PIECES and GET_PIECES
 * @file_size: bytes, from 0; GET_PIECES only writes it
 * @count: pieces, from 0; for GET_PIECES the room, and then the pieces there
 *	are, of which no more were written than there was room for
 * @reserved: 0
 * @pieces: user pointer to the list
 *
 * The pieces are in file order, do not overlap, and begin before the end of
 * the file. What of the file is in none of them is a hole: it reads as zeros
 * and cannot be written.
 */
struct famfs_ioc_pieces {
	__u64 file_size;
	__u32 count;
	__u32 reserved;
	__u64 pieces;
};

#define FAMFS_IOC_MAGIC 'u'

/* MAP_GETEXT writes ext_list_count extents, however many its number says */
#define FAMFSIOC_MAP_CREATE _IOW(FAMFS_IOC_MAGIC, 0x50, struct famfs_ioc_map)
#define FAMFSIOC_MAP_GET _IOR(FAMFS_IOC_MAGIC, 0x51, struct famfs_ioc_map)
#define FAMFSIOC_MAP_GETEXT _IOR(FAMFS_IOC_MAGIC, 0x52, struct famfs_extent)
#define FAMFSIOC_NOP _IO(FAMFS_IOC_MAGIC, 0x53)
#define FAMFSIOC_MAP_CREATE_V2 \
	_IOW(FAMFS_IOC_MAGIC, 0x54, struct famfs_ioc_fmap)
#define FAMFSIOC_MAP_GET_V2 \
	_IOR(FAMFS_IOC_MAGIC, 0x55, struct famfs_ioc_get_fmap)

/*
 * On an open directory, with CAP_SYS_ADMIN: the calling process may make links
 * and rename, and change names and attributes of a mount with the option
 * strict, until the directory is closed. Threads and programs it executes are
 * the process, children are not. EBUSY: another process has asked on the same
 * open directory.
 */
#define FAMFSIOC_EDIT _IO(FAMFS_IOC_MAGIC, 0x56)

#define FAMFSIOC_MAP_PIECES \
	_IOW(FAMFS_IOC_MAGIC, 0x57, struct famfs_ioc_pieces)
#define FAMFSIOC_GET_PIECES \
	_IOWR(FAMFS_IOC_MAGIC, 0x58, struct famfs_ioc_pieces)

#endif /* _UAPI_FAMFS_IOCTL_H */
