// SPDX-License-Identifier: GPL-2.0
/*
 * Loads from a mapping: all words in order, or as many at random. Each pass
 * has a mapping of its own, so its faults are part of the time.
 */
#include <stdbool.h>

#include "bench.h"

#define PASSES 5

static uint64_t sum_in_order(const volatile uint64_t *words, uint64_t count)
{
	uint64_t i, sum = 0;

	for (i = 0; i < count; i++)
		sum += words[i];
	return sum;
}

/* One word in 32, to take about as long. @count is a power of two. */
static uint64_t sum_at_random(const volatile uint64_t *words, uint64_t count)
{
	uint64_t i, sum = 0, state = 88172645463325252ULL;

	for (i = 0; i < count / 32; i++)
		sum += words[random_next(&state) & (count - 1)];
	return sum;
}

int main(int argc, char **argv)
{
	uint64_t offset, length, count, start, best = 0, sums[PASSES];
	bool random;
	int fd, pass;

	if (argc != 5)
		usage("seq|random PATH OFFSET LENGTH");
	random = !strcmp(argv[1], "random");
	fd = open_file(argv[2], O_RDWR);
	offset = number(argv[3]);
	length = number(argv[4]);
	count = length / sizeof(uint64_t);
	if (!count || count & (count - 1)) {
		errno = EINVAL;
		die("length %s is no power of two", argv[4]);
	}

	for (pass = 0; pass < PASSES; pass++) {
		uint64_t *words;

		start = now();
		words = map_range(fd, offset, length);
		sums[pass] = random ? sum_at_random(words, count) :
				      sum_in_order(words, count);
		munmap(words, length);
		keep_best(&best, start);
		if (sums[pass] != sums[0]) {
			errno = EIO;
			die("the contents changed");
		}
	}
	report(best);
	return 0;
}
