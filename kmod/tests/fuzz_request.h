/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Requests for maps in all generations of the interface: good ones, damaged
 * ones, and what has to come of them.
 */
#ifndef _FAMFS_FUZZ_REQUEST_H
#define _FAMFS_FUZZ_REQUEST_H

#include "fuzz_map.h"
#include "random.h"

#define AREAS 4
#define GENERATIONS 3

/* Pages with one after each that must not be touched */
struct arena {
	char *pages;
};

/* A request, by value; what the ioctl gets is a copy in the arena */
struct request {
	/* 0 for ABI 42, 1 for ABI 43, 2 for pieces */
	int generation;
	unsigned long command;
	void *argument;
	/* Some pointer leads to memory that cannot be read to its end */
	bool bad_pointer;
	struct famfs_ioc_map v42;
	struct famfs_ioc_fmap fmap;
	struct famfs_ioc_interleaved_extent interleaved;
	struct famfs_ioc_simple_extent list[FAMFS_MAX_EXTENTS];
	struct famfs_ioc_pieces pieces;
	struct famfs_ioc_piece piece_list[MAX_PIECES];
};

enum answer { GOOD, INVALID, NOT_WRITABLE };

static const char * const answer_names[] = {
	"good", "not valid", "on a read-only descriptor",
};

static inline void make_arena(struct arena *arena)
{
	arena->pages = mmap(NULL, AREAS * 2 * PAGE, PROT_NONE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (arena->pages == MAP_FAILED)
		bail("arena");
	for (int i = 0; i < AREAS; i++)
		mprotect(arena->pages + i * 2 * PAGE, PAGE,
			 PROT_READ | PROT_WRITE);
}

static inline uintptr_t wild_pointer(uint64_t *state)
{
	static const uintptr_t wild[] = {
		0, 8, 1ULL << 47, (1ULL << 47) - 1, 1ULL << 63,
		0xffff888000000000ULL, 0xffffffff81000000ULL,
		UINTPTR_MAX, UINTPTR_MAX - 7, UINTPTR_MAX - 4095,
	};

	return wild[below(state, ARRAY_SIZE(wild))];
}

/*
 * Copy @size bytes to the end of a page, where not one more can be read.
 * Now and then some of the bytes, or all, are where there is no memory.
 */
static inline uintptr_t place(const struct arena *arena, int area,
			      const void *data, size_t size, uint64_t *state,
			      bool *bad)
{
	char *end = arena->pages + area * 2 * PAGE + PAGE;
	size_t missing = 0;

	if (one_in(state, 40)) {
		*bad |= size > 0;
		return wild_pointer(state);
	}
	if (size && one_in(state, 40)) {
		*bad = true;
		missing = 1 + below(state, size);
	}
	memcpy(end - (size - missing), data, size - missing);
	return (uintptr_t)end - (size - missing);
}

/* Memory for any of the MAP_GETs to write to; or not */
static inline void *any_place(const struct arena *arena, uint64_t *state,
			      bool *good)
{
	char *end = arena->pages + (AREAS - 1) * 2 * PAGE + PAGE;

	*good = !one_in(state, 4);
	if (*good)
		return end - sizeof(struct famfs_ioc_get_fmap) -
		       below(state, 64);
	if (one_in(state, 2))
		return (void *)wild_pointer(state);
	/* The shortest answer is one extent of 16 bytes */
	return end - below(state, sizeof(struct famfs_extent));
}

static inline uint64_t boundary(uint64_t *state, uint64_t device)
{
	const uint64_t numbers[] = {
		0, 1, 2, 3, 15, 16, 17, 4095, 4096, MIB, PMD - 1, PMD,
		PMD + 1, 2 * PMD, 3 * PMD, 1ULL << 31, 1ULL << 32, 1ULL << 40,
		1ULL << 62, 1ULL << 63, (1ULL << 63) - 1, UINT32_MAX,
		UINT64_MAX, 0 - PMD, 0 - 2 * PMD, device, device - 1,
		device + 1, device - PMD, device + PMD,
	};

	return numbers[below(state, ARRAY_SIZE(numbers))];
}

/* One bit, or one aligned number of 4 or 8 bytes, becomes another */
static inline void damage(void *data, size_t size, uint64_t *state,
			  uint64_t device)
{
	unsigned char *bytes = data;
	uint64_t number = boundary(state, device);
	size_t width = one_in(state, 2) ? 4 : 8;

	if (one_in(state, 3))
		bytes[below(state, size)] ^= 1 << below(state, 8);
	else
		memcpy(bytes + below(state, size / width) * width, &number,
		       width);
}

/*
 * Where @len bytes may be on the device, behind the last ones as a rule, so
 * that they do not overlap
 */
static inline uint64_t good_range(uint64_t *next, uint64_t len, uint64_t align,
				  uint64_t *state, uint64_t device)
{
	uint64_t offset;

	if (*next + len > device || one_in(state, 50))
		*next = PMD + below(state, device / align) * align;
	offset = *next;
	*next += len + below(state, 3) * align;
	return offset;
}

/* 2 MiB, or a page */
static inline uint64_t any_unit(uint64_t *state)
{
	return one_in(state, 2) ? PMD : PAGE;
}

/* Extents of a few units each; the sum of their bytes */
static inline uint64_t good_list(struct request *r, uint32_t n, uint64_t unit,
				 uint64_t *state, uint64_t device)
{
	uint64_t align = unit < PMD ? unit : PMD, sum = 0;
	uint64_t next = PMD + below(state, device / align) * align;

	for (uint32_t i = 0; i < n; i++) {
		struct famfs_ioc_simple_extent *extent = &r->list[i];

		extent->devindex = 0;
		extent->len = unit * (1 + below(state, 3));
		extent->offset = good_range(&next, extent->len, align, state,
					    device);
		sum += extent->len;
	}
	return sum;
}

static inline uint64_t any_size(uint64_t *state, uint64_t most)
{
	return one_in(state, 2) ? most : 1 + below(state, most);
}

static inline void good_v42(struct request *r, uint64_t *state,
			    uint64_t device)
{
	uint32_t n = 1 + below(state, FAMFS_V42_MAX_EXTENTS);
	uint64_t sum = good_list(r, n, any_unit(state), state, device);

	r->command = FAMFSIOC_MAP_CREATE;
	r->v42.file_type = below(state, 3);
	r->v42.file_size = any_size(state, sum);
	r->v42.ext_list_count = n;
	for (uint32_t i = 0; i < n; i++) {
		r->v42.ext_list[i].offset = r->list[i].offset;
		r->v42.ext_list[i].len = r->list[i].len;
	}
}

static inline void good_v43(struct request *r, uint64_t *state,
			    uint64_t device)
{
	uint32_t n = 1 + below(state, FAMFS_MAX_EXTENTS);
	uint64_t chunk = PMD << below(state, 3), least = UINT64_MAX, sum;

	r->command = FAMFSIOC_MAP_CREATE_V2;
	r->fmap.file_type = below(state, 3);
	r->fmap.nextents = n;
	r->fmap.reserved = random_u64(state);
	if (one_in(state, 2)) {
		sum = good_list(r, n, any_unit(state), state, device);
		r->fmap.file_size = any_size(state, sum);
		return;
	}

	good_list(r, n, chunk, state, device);
	for (uint32_t i = 0; i < n; i++)
		if (r->list[i].len < least)
			least = r->list[i].len;
	r->fmap.ext_type = FAMFS_EXTENT_INTERLEAVED;
	r->fmap.nextents = 1;
	r->fmap.file_size = any_size(state, n * least);
	r->interleaved.nstrips = n;
	r->interleaved.chunk_size = chunk;
	r->interleaved.nbytes = r->fmap.file_size + below(state, 2) * PMD;
}

/* Pieces with holes before, between and behind them, or none at all */
static inline void good_pieces(struct request *r, uint64_t *state,
			       uint64_t device)
{
	uint64_t unit = any_unit(state), end = 0, last = 0;
	uint64_t next = PMD + below(state, device / unit) * unit;

	r->command = FAMFSIOC_MAP_PIECES;
	r->pieces.count = below(state, MAX_PIECES + 1);
	for (uint32_t i = 0; i < r->pieces.count; i++) {
		struct famfs_ioc_piece *piece = &r->piece_list[i];

		last = end + below(state, 3) * unit;
		piece->file_offset = last;
		piece->len = unit * (1 + below(state, 3));
		piece->offset = good_range(&next, piece->len, unit, state,
					   device);
		end = last + piece->len;
	}
	/* Within the last piece, or a hole to the end */
	if (r->pieces.count)
		last++;
	r->pieces.file_size = last + below(state, end - last + 2 * unit);
}

static inline void damage_request(struct request *r, uint64_t *state,
				  uint64_t device)
{
	if (!r->generation) {
		damage(&r->v42, sizeof(r->v42), state, device);
		return;
	}
	if (r->generation == 2) {
		if (one_in(state, 2))
			damage(&r->pieces, sizeof(r->pieces), state, device);
		else
			damage(r->piece_list, sizeof(r->piece_list[0]) *
			       (1 + below(state, MAX_PIECES)), state, device);
		return;
	}
	switch (below(state, 3)) {
	case 0:
		damage(&r->fmap, sizeof(r->fmap), state, device);
		break;
	case 1:
		damage(&r->interleaved, sizeof(r->interleaved), state, device);
		break;
	default:
		damage(r->list, sizeof(r->list[0]) * (1 + below(state, 16)),
		       state, device);
	}
}

/* As many entries as can be asked for; more are refused without a look */
static inline size_t list_bytes(const struct request *r, uint64_t entries)
{
	return entries > FAMFS_MAX_EXTENTS ? 0 : entries * sizeof(r->list[0]);
}

static inline void make_request(struct request *r, const struct arena *arena,
				uint64_t *state, uint64_t device)
{
	bool bad = false;

	memset(r, 0, sizeof(*r));
	r->generation = below(state, GENERATIONS);
	if (r->generation == 2)
		good_pieces(r, state, device);
	else if (r->generation)
		good_v43(r, state, device);
	else
		good_v42(r, state, device);
	if (one_in(state, 2))
		for (uint64_t n = 1 + below(state, 3); n; n--)
			damage_request(r, state, device);

	if (!r->generation) {
		r->argument = (void *)place(arena, 0, &r->v42, sizeof(r->v42),
					    state, &bad);
	} else if (r->generation == 2) {
		/* A damaged count that is too long for the list is that here */
		if (r->pieces.count > MAX_PIECES &&
		    r->pieces.count <= FAMFS_MAX_PIECES)
			r->pieces.count = MAX_PIECES;
		r->pieces.pieces =
			place(arena, 2, r->piece_list,
			      r->pieces.count > MAX_PIECES ? 0 :
			      r->pieces.count * sizeof(r->piece_list[0]),
			      state, &bad);
		r->argument = (void *)place(arena, 0, &r->pieces,
					    sizeof(r->pieces), state, &bad);
	} else if (r->fmap.ext_type == FAMFS_EXTENT_INTERLEAVED) {
		r->interleaved.strips =
			place(arena, 2, r->list,
			      list_bytes(r, r->interleaved.nstrips), state,
			      &bad);
		r->fmap.extents = place(arena, 1, &r->interleaved,
					sizeof(r->interleaved), state, &bad);
	} else {
		r->fmap.extents = place(arena, 2, r->list,
					list_bytes(r, r->fmap.nextents), state,
					&bad);
	}
	if (r->generation == 1)
		r->argument = (void *)place(arena, 0, &r->fmap,
					    sizeof(r->fmap), state, &bad);
	r->bad_pointer = bad;
}

static inline void expect_pieces(struct expected_map *map,
				 const struct request *r)
{
	map->file_type = FAMFS_FILE_REGULAR;
	map->file_size = r->pieces.file_size;
	map->ext_type = FAMFS_EXTENT_SIMPLE;
	map->nr_spans = r->pieces.count;
	memcpy(map->spans, r->piece_list, sizeof(map->spans));
}

static inline void expect_v42(struct expected_map *map,
			      const struct request *r)
{
	map->file_type = r->v42.file_type;
	map->file_size = r->v42.file_size;
	map->ext_type = r->v42.extent_type;
	map->nr_spans = r->v42.ext_list_count;
	for (int i = 0; i < FAMFS_V42_MAX_EXTENTS; i++) {
		map->spans[i].offset = r->v42.ext_list[i].offset;
		map->spans[i].len = r->v42.ext_list[i].len;
	}
}

static inline void expect_v43(struct expected_map *map,
			      const struct request *r)
{
	map->file_type = r->fmap.file_type;
	map->file_size = r->fmap.file_size;
	map->ext_type = r->fmap.ext_type;
	map->nr_spans = r->fmap.nextents;
	for (int i = 0; i < FAMFS_MAX_EXTENTS; i++) {
		map->spans[i].offset = r->list[i].offset;
		map->spans[i].len = r->list[i].len;
	}
	if (map->ext_type == FAMFS_EXTENT_INTERLEAVED) {
		map->nr_spans = r->interleaved.nstrips;
		map->chunk_size = r->interleaved.chunk_size;
		map->nbytes = r->interleaved.nbytes;
	}
}

/* The map that the request describes, which has good counts */
static inline void expect_map(struct expected_map *map,
			      const struct request *r)
{
	uint64_t end = 0;

	memset(map, 0, sizeof(*map));
	switch (r->generation) {
	case 0:
		expect_v42(map, r);
		break;
	case 1:
		expect_v43(map, r);
		break;
	default:
		expect_pieces(map, r);
		return;
	}
	if (map->ext_type == FAMFS_EXTENT_INTERLEAVED)
		return;
	for (uint32_t i = 0; i < map->nr_spans; i++) {
		map->spans[i].file_offset = end;
		end += map->spans[i].len;
	}
}

static inline bool good_counts(const struct request *r)
{
	if (r->generation == 2)
		return r->pieces.count <= MAX_PIECES && !r->pieces.reserved;
	if (!r->generation)
		return r->v42.extent_type == FAMFS_EXTENT_SIMPLE &&
		       r->v42.ext_list_count >= 1 &&
		       r->v42.ext_list_count <= FAMFS_V42_MAX_EXTENTS;
	if (r->fmap.ext_type == FAMFS_EXTENT_SIMPLE)
		return r->fmap.nextents >= 1 &&
		       r->fmap.nextents <= FAMFS_MAX_EXTENTS;
	return r->fmap.ext_type == FAMFS_EXTENT_INTERLEAVED &&
	       r->fmap.nextents == 1 && r->interleaved.nstrips >= 1 &&
	       r->interleaved.nstrips <= FAMFS_MAX_STRIPS;
}

/* Deal the chunks of the file out, one by one, as the description says */
static inline bool chunks_fit(const struct expected_map *map)
{
	uint64_t room[FAMFS_MAX_STRIPS], left = map->file_size;

	for (uint32_t i = 0; i < map->nr_spans; i++)
		room[i] = map->spans[i].len;
	for (uint32_t i = 0; ; i = (i + 1) % map->nr_spans) {
		if (room[i] < map->chunk_size)
			return false;
		room[i] -= map->chunk_size;
		if (left <= map->chunk_size)
			return true;
		left -= map->chunk_size;
	}
}

/* A device index is in no expected map, so it is looked at in the request */
static inline bool one_device(const struct request *r, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (r->list[i].devindex)
			return false;
	return true;
}

static inline bool good_spans(const struct expected_map *map, uint64_t device)
{
	uint64_t unit = map->ext_type == FAMFS_EXTENT_INTERLEAVED ?
			FAMFS_ALIGN : FAMFS_PAGE;

	for (uint32_t i = 0; i < map->nr_spans; i++) {
		const struct famfs_ioc_piece *span = &map->spans[i];

		if (!span->len || span->len % unit || span->offset % unit ||
		    span->len > device || span->offset > device - span->len)
			return false;
		if (!span->offset && map->file_type != FAMFS_FILE_SUPERBLOCK)
			return false;
	}
	return true;
}

/* In order, from a page on, and beginning within the file */
static inline bool pieces_fit(const struct expected_map *map)
{
	uint64_t end = 0;

	for (uint32_t i = 0; i < map->nr_spans; i++) {
		const struct famfs_ioc_piece *span = &map->spans[i];

		if (span->file_offset % FAMFS_PAGE ||
		    span->file_offset < end ||
		    span->file_offset >= map->file_size)
			return false;
		end = span->file_offset + span->len;
	}
	return map->file_size <= (uint64_t)INT64_MAX / PMD * PMD;
}

/* What the description of the interface says of the request */
static inline enum answer judge(const struct request *r, uint64_t device)
{
	struct expected_map map;
	uint64_t sum = 0;

	if (r->bad_pointer || !good_counts(r))
		return INVALID;
	expect_map(&map, r);
	if (!good_spans(&map, device))
		return INVALID;
	if (r->generation == 2)
		return pieces_fit(&map) ? GOOD : INVALID;
	if (r->generation == 1 && !one_device(r, map.nr_spans))
		return INVALID;
	for (uint32_t i = 0; i < map.nr_spans; i++)
		sum += map.spans[i].len;
	if (map.file_type > FAMFS_FILE_LOG || !map.file_size ||
	    map.file_size > sum)
		return INVALID;
	if (map.ext_type == FAMFS_EXTENT_SIMPLE)
		return GOOD;
	if (map.chunk_size < FAMFS_ALIGN ||
	    map.chunk_size & (map.chunk_size - 1) ||
	    map.nbytes < map.file_size || !chunks_fit(&map))
		return INVALID;
	return GOOD;
}

static inline bool is_documented(int error)
{
	static const int documented[] = {
		0, EBADF, EBUSY, EEXIST, EFAULT, E2BIG, EINVAL, ENODEV, ERANGE,
	};

	for (size_t i = 0; i < ARRAY_SIZE(documented); i++)
		if (error == documented[i])
			return true;
	return false;
}

/* A good request fails only for what others, or it itself, have taken */
static inline bool answers(enum answer expected, int error)
{
	bool taken = error == EBUSY || error == EEXIST;

	switch (expected) {
	case GOOD:
		return !error || taken;
	case NOT_WRITABLE:
		return error == EBADF;
	default:
		return error && !taken && error != EBADF;
	}
}

#endif /* _FAMFS_FUZZ_REQUEST_H */
