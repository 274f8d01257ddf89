// SPDX-License-Identifier: GPL-2.0
/* Attaching maps: all that is refused, what is accepted, and what is told. */
#include <pthread.h>
#include <sys/syscall.h>

#include "fixture.h"

#define BASE (16 * MIB)

/* One v42 request for a fresh file, wrong in one way */
static const struct {
	const char *what;
	int error;
	struct famfs_ioc_map map;
} bad_v42[] = {
	{ "v42: no extents", EINVAL, { .file_size = PMD } },
	{ "v42: 3 extents", E2BIG, { 0, 0, PMD, 3, { { BASE, PMD } } } },
	{ "v42: 2^64 - 1 extents", E2BIG,
	  { 0, 0, PMD, UINT64_MAX, { { BASE, PMD } } } },
	{ "v42: interleaved", EINVAL, { 1, 0, PMD, 1, { { BASE, PMD } } } },
	{ "v42: file type 3", EINVAL, { 0, 3, PMD, 1, { { BASE, PMD } } } },
	{ "v42: size 0", EINVAL, { 0, 0, 0, 1, { { BASE, PMD } } } },
	{ "v42: size beyond extents", EINVAL,
	  { 0, 0, PMD + 1, 1, { { BASE, PMD } } } },
	{ "v42: size 2^64 - 1", EINVAL,
	  { 0, 0, UINT64_MAX, 1, { { BASE, PMD } } } },
	{ "v42: length 0", EINVAL, { 0, 0, 1, 1, { { BASE, 0 } } } },
	{ "v42: unaligned offset", EINVAL,
	  { 0, 0, PMD, 1, { { BASE + 2048, PMD } } } },
	{ "v42: unaligned length", EINVAL,
	  { 0, 0, 4096, 1, { { BASE, 4097 } } } },
	{ "v42: unaligned second length", EINVAL,
	  { 0, 0, PMD, 2, { { BASE, PMD }, { BASE + PMD, PMD + 512 } } } },
	{ "v42: offset 0 for a regular file", EINVAL,
	  { 0, 0, PMD, 1, { { 0, PMD } } } },
	{ "v42: offset 0 for a log", EINVAL,
	  { 0, FAMFS_FILE_LOG, PMD, 1, { { 0, PMD } } } },
	{ "v42: offset beyond any device", ERANGE,
	  { 0, 0, PMD, 1, { { 1ULL << 62, PMD } } } },
	{ "v42: length beyond any device", ERANGE,
	  { 0, 0, PMD, 1, { { BASE, 1ULL << 62 } } } },
	{ "v42: offset plus length wraps", ERANGE,
	  { 0, 0, PMD, 1, { { 0 - PMD, 2 * PMD } } } },
	{ "v42: two equal extents", EBUSY,
	  { 0, 0, 2 * PMD, 2, { { BASE, PMD }, { BASE, PMD } } } },
	{ "v42: extents overlap by half", EBUSY,
	  { 0, 0, 4 * PMD, 2, { { BASE, 2 * PMD },
				{ BASE + PMD, 2 * PMD } } } },
};

/* Strips for the interleaved cases; FAMFS_MAX_STRIPS + 1 of 4 MiB */
static struct famfs_ioc_simple_extent strips[FAMFS_MAX_STRIPS + 1];
static const struct famfs_ioc_simple_extent equal_strips[2] = {
	{ 0, BASE, 2 * PMD }, { 0, BASE, 2 * PMD },
};

static const struct famfs_ioc_simple_extent other_device[2] = {
	{ 0, BASE, 2 * PMD }, { 1, BASE + 2 * PMD, 2 * PMD },
};

static const struct famfs_ioc_simple_extent strip_at_0[2] = {
	{ 0, 0, 2 * PMD }, { 0, BASE, 2 * PMD },
};

static const struct famfs_ioc_simple_extent unaligned_strip[2] = {
	{ 0, BASE, 2 * PMD }, { 0, BASE + 2 * PMD + 4096, 2 * PMD },
};

static const struct famfs_ioc_simple_extent empty_strip[2] = {
	{ 0, BASE, 2 * PMD }, { 0, BASE + 2 * PMD, 0 },
};

static const struct famfs_ioc_simple_extent far_strip[2] = {
	{ 0, BASE, 2 * PMD }, { 0, 1ULL << 62, 2 * PMD },
};

static const struct {
	const char *what;
	int error;
	uint64_t size, chunk, nstrips, nbytes;
	const struct famfs_ioc_simple_extent *strips;
} bad_interleaved[] = {
	{ "interleaved: no strips", EINVAL, PMD, PMD, 0, PMD, strips },
	{ "interleaved: 17 strips", E2BIG, PMD, PMD, 17, PMD, strips },
	{ "interleaved: chunk 0", EINVAL, PMD, 0, 2, PMD, strips },
	{ "interleaved: chunk 6 MiB", EINVAL, PMD, 3 * PMD, 2, PMD, strips },
	{ "interleaved: chunk 1 MiB", EINVAL, PMD, MIB, 2, PMD, strips },
	{ "interleaved: chunk 2^63", EINVAL, PMD, 1ULL << 63, 2, PMD, strips },
	{ "interleaved: strips too short", EINVAL, 4 * PMD + 1, PMD, 2,
	  4 * PMD + 1, strips },
	{ "interleaved: bytes less than size", EINVAL, PMD, PMD, 2, PMD - 1,
	  strips },
	{ "interleaved: strips overlap", EBUSY, PMD, PMD, 2, PMD,
	  equal_strips },
	{ "interleaved: strip of another device", ENODEV, PMD, PMD, 2, PMD,
	  other_device },
	{ "interleaved: strip at offset 0", EINVAL, PMD, PMD, 2, PMD,
	  strip_at_0 },
	{ "interleaved: unaligned strip", EINVAL, PMD, PMD, 2, PMD,
	  unaligned_strip },
	{ "interleaved: strip of length 0", EINVAL, PMD, PMD, 2, PMD,
	  empty_strip },
	{ "interleaved: strip beyond the device", ERANGE, PMD, PMD, 2, PMD,
	  far_strip },
	{ "interleaved: last strip of 16 too short", EINVAL, 32 * PMD + 1,
	  2 * PMD, 16, 32 * PMD + 1, strips },
	{ "interleaved: bad list pointer", EFAULT, PMD, PMD, 2, PMD,
	  (void *)8 },
};

static void test_stub(int fd)
{
	struct famfs_ioc_map map;
	struct famfs_ioc_get_fmap get;
	struct famfs_extent list[FAMFS_MAX_EXTENTS];

	works(ioctl(fd, FAMFSIOC_NOP), "NOP on an empty file");
	fails(ioctl(fd, FAMFSIOC_MAP_GET, &map), ENODATA, "MAP_GET, no map");
	fails(ioctl(fd, FAMFSIOC_MAP_GETEXT, list), ENODATA,
	      "MAP_GETEXT, no map");
	fails(ioctl(fd, FAMFSIOC_MAP_GET_V2, &get), ENODATA,
	      "MAP_GET_V2, no map");
	fails(ioctl(fd, _IO('u', 0x5f)), ENOTTY, "an unknown ioctl");
}

static void test_refusals(int fd)
{
	struct famfs_ioc_simple_extent many[FAMFS_MAX_EXTENTS + 1];
	struct famfs_ioc_interleaved_extent ie = { 0 };
	struct famfs_ioc_fmap fmap = { .file_size = PMD, .nextents = 1 };
	struct stat st;

	for (size_t i = 0; i < ARRAY_SIZE(bad_v42); i++)
		fails(ioctl(fd, FAMFSIOC_MAP_CREATE, &bad_v42[i].map),
		      bad_v42[i].error, bad_v42[i].what);
	fails(ioctl(fd, FAMFSIOC_MAP_CREATE, (void *)8), EFAULT,
	      "v42: bad pointer");

	for (size_t i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = (struct famfs_ioc_simple_extent) {
			.offset = BASE + i * PMD, .len = PMD,
		};
	fails(map_simple(fd, PMD, 0, many), EINVAL, "v43: no extents");
	fails(map_simple(fd, PMD, 17, many), E2BIG, "v43: 17 extents");
	fails(map_simple(fd, PMD, UINT32_MAX, many), E2BIG,
	      "v43: 2^32 - 1 extents");
	fails(map_simple(fd, PMD, 2, other_device), ENODEV,
	      "v43: extent of another device");
	fails(map_simple(fd, PMD, 2, (void *)8), EFAULT,
	      "v43: bad list pointer");
	fails(ioctl(fd, FAMFSIOC_MAP_CREATE_V2, (void *)8), EFAULT,
	      "v43: bad pointer");
	fmap.ext_type = 2;
	fails(ioctl(fd, FAMFSIOC_MAP_CREATE_V2, &fmap), EINVAL,
	      "v43: extent type 2");
	fmap.ext_type = FAMFS_EXTENT_INTERLEAVED;
	fmap.extents = (uintptr_t)&ie;
	fmap.nextents = 2;
	fails(ioctl(fd, FAMFSIOC_MAP_CREATE_V2, &fmap), E2BIG,
	      "interleaved: 2 of them");
	fmap.nextents = 0;
	fails(ioctl(fd, FAMFSIOC_MAP_CREATE_V2, &fmap), EINVAL,
	      "interleaved: none");

	fmap.nextents = 1;
	for (size_t i = 0; i < ARRAY_SIZE(bad_interleaved); i++) {
		fmap.file_size = bad_interleaved[i].size;
		ie.chunk_size = bad_interleaved[i].chunk;
		ie.nstrips = bad_interleaved[i].nstrips;
		ie.nbytes = bad_interleaved[i].nbytes;
		ie.strips = (uintptr_t)bad_interleaved[i].strips;
		fails(ioctl(fd, FAMFSIOC_MAP_CREATE_V2, &fmap),
		      bad_interleaved[i].error, bad_interleaved[i].what);
	}

	fstat(fd, &st);
	is(st.st_size, 0, "the file is still empty");
}

static void test_device_end(int fd)
{
	uint64_t end = dev_size / PMD * PMD;
	struct famfs_ioc_simple_extent across = {
		.offset = end - PMD, .len = 2 * PMD,
	};
	struct famfs_ioc_simple_extent last = {
		.offset = end - PMD, .len = PMD,
	};

	fails(map_simple(fd, PMD, 1, &across), ERANGE,
	      "an extent across the end of the device");
	works(map_simple(fd, PMD, 1, &last), "the last extent of the device");
}

static void test_round_trip_v42(int fd)
{
	struct famfs_ioc_map map = {
		.file_type = FAMFS_FILE_LOG,
		.file_size = 3 * PMD - 5,
		.ext_list_count = 2,
		.ext_list = { { BASE + 4 * PMD, 2 * PMD }, { BASE, PMD } },
	};
	struct famfs_extent list[FAMFS_MAX_EXTENTS];
	struct famfs_ioc_get_fmap get;
	struct famfs_ioc_map got;
	struct statx stx;

	works(ioctl(fd, FAMFSIOC_MAP_CREATE, &map), "v42: 2 extents");
	fails(ioctl(fd, FAMFSIOC_MAP_CREATE, &map), EEXIST,
	      "v42: a second map");
	works(ioctl(fd, FAMFSIOC_MAP_GET, &got), "MAP_GET");
	ok(!memcmp(&map, &got, sizeof(map)), "MAP_GET tells what was set");
	memset(list, 0xee, sizeof(list));
	works(ioctl(fd, FAMFSIOC_MAP_GETEXT, list), "MAP_GETEXT");
	ok(!memcmp(list, map.ext_list, sizeof(map.ext_list)) &&
	   list[2].offset == 0xeeeeeeeeeeeeeeeeULL,
	   "MAP_GETEXT writes both extents and no more");
	fails(ioctl(fd, FAMFSIOC_MAP_GET, (void *)8), EFAULT,
	      "MAP_GET, bad pointer");
	fails(ioctl(fd, FAMFSIOC_MAP_GETEXT, (void *)8), EFAULT,
	      "MAP_GETEXT, bad pointer");
	fails(ioctl(fd, FAMFSIOC_MAP_GET_V2, (void *)8), EFAULT,
	      "MAP_GET_V2, bad pointer");
	works(ioctl(fd, FAMFSIOC_MAP_GET_V2, &get), "MAP_GET_V2");
	ok(get.fmap.file_size == map.file_size &&
	   get.fmap.file_type == FAMFS_FILE_LOG && get.fmap.nextents == 2 &&
	   get.simple[1].offset == BASE && get.simple[1].len == PMD,
	   "MAP_GET_V2 tells it too");

	statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &stx);
	is(stx.stx_size, map.file_size, "stat tells the size");
	is(stx.stx_blocks, (map.file_size + 511) / 512, "and the blocks");
	ok(stx.stx_attributes & STATX_ATTR_DAX, "statx says DAX");
}

static void test_overlap(int fd)
{
	static const struct {
		const char *what;
		struct famfs_ioc_simple_extent extent;
	} taken[] = {
		{ "the same range", { 0, BASE, PMD } },
		{ "a range around", { 0, BASE - PMD, 3 * PMD } },
		{ "the end of a range", { 0, BASE + 5 * PMD, 2 * PMD } },
		{ "the start of a range", { 0, BASE + 3 * PMD, 2 * PMD } },
	};
	struct famfs_ioc_simple_extent partly[2] = {
		{ 0, BASE + 8 * PMD, PMD }, { 0, BASE, PMD },
	};

	for (size_t i = 0; i < ARRAY_SIZE(taken); i++)
		fails(map_simple(fd, PMD, 1, &taken[i].extent), EBUSY,
		      taken[i].what);
	fails(map_simple(fd, PMD, 2, partly), EBUSY, "one of two extents");
	works(map_simple(fd, PMD, 1, partly),
	      "what a refused map had is free again");
}

static void test_round_trip_v43(int fd)
{
	struct famfs_ioc_simple_extent extents[FAMFS_MAX_EXTENTS];
	struct famfs_extent list[FAMFS_MAX_EXTENTS];
	struct famfs_ioc_get_fmap get;
	struct famfs_ioc_map map;

	for (size_t i = 0; i < FAMFS_MAX_EXTENTS; i++)
		extents[i] = (struct famfs_ioc_simple_extent) {
			.offset = BASE + (40 - 2 * i) * PMD, .len = PMD,
		};
	works(map_simple(fd, 16 * PMD, 16, extents), "v43: 16 extents");
	memset(&get, 0xee, sizeof(get));
	works(ioctl(fd, FAMFSIOC_MAP_GET_V2, &get), "MAP_GET_V2 of 16");
	is(get.fmap.nextents, 16, "MAP_GET_V2 counts 16");
	ok(!memcmp(get.simple, extents, sizeof(extents)),
	   "MAP_GET_V2 tells all 16");
	works(ioctl(fd, FAMFSIOC_MAP_GET, &map), "MAP_GET of 16");
	is(map.ext_list_count, 16, "MAP_GET counts 16");
	works(ioctl(fd, FAMFSIOC_MAP_GETEXT, list), "MAP_GETEXT of 16");
	is(list[15].offset, extents[15].offset, "MAP_GETEXT tells the last");
}

static void test_round_trip_interleaved(int fd)
{
	struct famfs_ioc_get_fmap get;
	struct famfs_ioc_map map;

	works(map_interleaved(fd, 5 * PMD - 7, PMD, 3, strips),
	      "interleaved: 3 strips");
	works(ioctl(fd, FAMFSIOC_MAP_GET_V2, &get), "MAP_GET_V2 of strips");
	ok(get.fmap.ext_type == FAMFS_EXTENT_INTERLEAVED &&
	   get.fmap.nextents == 1 && get.interleaved.nstrips == 3 &&
	   get.interleaved.chunk_size == PMD &&
	   get.interleaved.nbytes == 5 * PMD - 7 &&
	   !memcmp(get.strips, strips, 3 * sizeof(strips[0])),
	   "MAP_GET_V2 tells what was set");
	works(ioctl(fd, FAMFSIOC_MAP_GET, &map), "MAP_GET of strips");
	ok(map.extent_type == FAMFS_EXTENT_INTERLEAVED &&
	   map.ext_list_count == 3, "MAP_GET counts the strips");
}

/* As many strips as there can be, chunks of every power of two that fits */
static void test_strips(void)
{
	struct famfs_ioc_get_fmap get;
	char what[64];

	for (uint64_t n = 1; n <= FAMFS_MAX_STRIPS; n *= 2) {
		for (uint64_t chunk = PMD; chunk <= 2 * PMD; chunk *= 2) {
			uint64_t size = n * 2 * PMD - 1;
			int fd = make_stub("strips");

			memset(&get, 0xee, sizeof(get));
			snprintf(what, sizeof(what),
				 "%d strips with chunks of %d MiB come back",
				 (int)n, (int)(chunk / MIB));
			ok(!map_interleaved(fd, size, chunk, n, strips) &&
			   !ioctl(fd, FAMFSIOC_MAP_GET_V2, &get) &&
			   get.fmap.file_size == size &&
			   get.fmap.file_type == FAMFS_FILE_REGULAR &&
			   get.fmap.ext_type == FAMFS_EXTENT_INTERLEAVED &&
			   get.fmap.nextents == 1 && !get.fmap.reserved &&
			   !get.fmap.extents && !get.interleaved.strips &&
			   get.interleaved.nstrips == n &&
			   get.interleaved.chunk_size == chunk &&
			   get.interleaved.nbytes == size &&
			   !memcmp(get.strips, strips, n * sizeof(*strips)),
			   "%s", what);
			close(fd);
			unlink(at("strips"));
		}
	}
}

static void test_permissions(void)
{
	struct famfs_ioc_simple_extent extent = {
		.offset = BASE + 64 * PMD, .len = PMD,
	};
	int fd = make_stub("permissions");
	int reader = open(at("permissions"), O_RDONLY);
	int dir = open(mnt, O_RDONLY | O_DIRECTORY);
	int status;
	pid_t child;

	fails(map_simple(reader, PMD, 1, &extent), EBADF,
	      "a map through a descriptor for reading");
	fails(map_simple(dir, PMD, 1, &extent), ENOTTY, "a map for a directory");

	fflush(stdout);
	child = fork();
	if (!child) {
		if (setgid(1000) || setuid(1000))
			_exit(1);
		_exit(map_simple(fd, PMD, 1, &extent) != -1 || errno != EPERM);
	}
	waitpid(child, &status, 0);
	ok(!status, "a map from an ordinary user: EPERM");
	works(map_simple(fd, PMD, 1, &extent), "a map from root");
	unlink(at("permissions"));
	close(reader);
	close(dir);
	close(fd);
}

static int race_fd;
static struct famfs_ioc_simple_extent race_extent[2];
static pthread_barrier_t race_start;

static void *race_thread(void *index)
{
	pthread_barrier_wait(&race_start);
	return (void *)(intptr_t)map_simple(race_fd, PMD, 1,
					    &race_extent[(uintptr_t)index]);
}

/* Two threads, one file, two ranges: one wins, the loser's range stays free */
static void test_race(void)
{
	int rounds = 200, one_winner = 0, all_free = 0;
	struct statfs before, after;

	race_extent[0] = (struct famfs_ioc_simple_extent) {
		.offset = BASE + 70 * PMD, .len = PMD,
	};
	race_extent[1] = (struct famfs_ioc_simple_extent) {
		.offset = BASE + 71 * PMD, .len = PMD,
	};
	pthread_barrier_init(&race_start, NULL, 2);
	statfs(mnt, &before);
	for (int i = 0; i < rounds; i++) {
		pthread_t threads[2];
		void *results[2];

		race_fd = make_stub("race");
		for (uintptr_t t = 0; t < 2; t++)
			pthread_create(&threads[t], NULL, race_thread,
				       (void *)t);
		for (int t = 0; t < 2; t++)
			pthread_join(threads[t], &results[t]);
		one_winner += !results[0] != !results[1];
		close(race_fd);
		unlink(at("race"));
		statfs(mnt, &after);
		all_free += after.f_bfree == before.f_bfree;
	}
	is(one_winner, rounds, "of two threads exactly one attaches its map");
	is(all_free, rounds, "all ranges are free after unlink");
}

int main(int argc, char **argv)
{
	static const char * const names[] = {
		"refused", "v42", "overlap", "v43", "interleaved", "super",
	};
	struct famfs_ioc_map superblock = {
		.file_type = FAMFS_FILE_SUPERBLOCK,
		.file_size = PMD,
		.ext_list_count = 1,
		.ext_list = { { 0, PMD } },
	};
	struct statfs sfs;
	int fds[ARRAY_SIZE(names)];

	for (size_t i = 0; i < ARRAY_SIZE(strips); i++)
		strips[i] = (struct famfs_ioc_simple_extent) {
			.offset = BASE + 50 * PMD + i * 2 * PMD,
			.len = 2 * PMD,
		};

	set_up(argc, argv);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		fds[i] = make_stub(names[i]);

	test_stub(fds[0]);
	test_refusals(fds[0]);
	test_device_end(fds[0]);
	test_round_trip_v42(fds[1]);
	test_overlap(fds[2]);
	test_round_trip_v43(fds[3]);
	test_strips();
	test_round_trip_interleaved(fds[4]);
	test_permissions();
	test_race();
	works(ioctl(fds[5], FAMFSIOC_MAP_CREATE, &superblock),
	      "a superblock at offset 0");

	statfs(mnt, &sfs);
	is(sfs.f_blocks - sfs.f_bfree,
	   (1 + 3 + 1 + 16 + 3 * 2 + 1) * PMD / sfs.f_bsize,
	   "statfs counts what files have");
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		close(fds[i]);
		unlink(at(names[i]));
	}
	statfs(mnt, &sfs);
	is(sfs.f_bfree, sfs.f_blocks, "and all is free in the end");
	return tear_down();
}
