/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Random numbers that can be had again: the tests that use them print their
 * seed and take one, as PROGRAM DEVICE MOUNTPOINT [COUNT [SEED]].
 */
#ifndef _FAMFS_RANDOM_H
#define _FAMFS_RANDOM_H

#include "fixture.h"

#define DEFAULT_SEED 1

static uint64_t count, seed;

static inline uint64_t number_argument(int argc, char **argv, int index,
				       uint64_t otherwise)
{
	uint64_t number;
	char *end;

	if (argc <= index)
		return otherwise;
	errno = 0;
	number = strtoull(argv[index], &end, 0);
	if (errno || *end || end == argv[index]) {
		fprintf(stderr, "%s: not a number\n", argv[index]);
		fprintf(stderr, "usage: %s DEVICE MOUNTPOINT [COUNT [SEED]]\n",
			argv[0]);
		exit(2);
	}
	return number;
}

static inline void parse_random_arguments(int argc, char **argv,
					  uint64_t default_count)
{
	count = number_argument(argc, argv, 3, default_count);
	seed = number_argument(argc, argv, 4, DEFAULT_SEED);
}

/* The next of a sequence of 64-bit numbers: a Weyl sequence, well mixed */
static inline uint64_t random_u64(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15ULL;

	x = (x ^ x >> 32) * 0xd6e8feb86659fd93ULL;
	x = (x ^ x >> 32) * 0xd6e8feb86659fd93ULL;
	return x ^ x >> 32;
}

/* From 0 to @limit - 1 */
static inline uint64_t below(uint64_t *state, uint64_t limit)
{
	return random_u64(state) % limit;
}

/* True once in @times */
static inline bool one_in(uint64_t *state, uint64_t times)
{
	return !below(state, times);
}

#endif /* _FAMFS_RANDOM_H */
