// SPDX-License-Identifier: GPL-2.0
/*
 * Reads of 64 bytes at random places of a file: next to nothing is copied, so
 * the way to the bytes is what counts.
 */
#include <sys/stat.h>

#include "bench.h"

#define PASSES 5
#define READS 10000
#define BYTES 64

int main(int argc, char **argv)
{
	uint64_t start, state, best = 0;
	char buf[BYTES];
	struct stat st;
	int fd, pass, i;

	if (argc != 2)
		usage("PATH");
	fd = open_file(argv[1], O_RDONLY);
	if (fstat(fd, &st))
		die("stat %s", argv[1]);

	for (pass = 0; pass < PASSES; pass++) {
		state = 88172645463325252ULL;
		start = now();
		for (i = 0; i < READS; i++) {
			off_t at = random_next(&state) % (st.st_size / BYTES);

			if (pread(fd, buf, BYTES, at * BYTES) != BYTES)
				die("read at %lld", (long long)at * BYTES);
		}
		keep_best(&best, start);
	}
	report(best / READS);
	return 0;
}
