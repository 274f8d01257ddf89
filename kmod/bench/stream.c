// SPDX-License-Identifier: GPL-2.0
/* A whole file with read(2) or write(2), block by block. */
#include <stdbool.h>
#include <sys/stat.h>

#include "bench.h"

#define PASSES 5

int main(int argc, char **argv)
{
	uint64_t block, done, start, best = 0;
	struct stat st;
	bool write;
	int fd, pass;
	char *buf;

	if (argc != 4)
		usage("read|write PATH BLOCK");
	write = !strcmp(argv[1], "write");
	fd = open_file(argv[2], O_RDWR);
	block = number(argv[3]);
	if (fstat(fd, &st))
		die("stat %s", argv[2]);
	buf = aligned_alloc(PMD, block);
	if (!buf)
		die("%s bytes", argv[3]);
	memset(buf, 0x5a, block);

	for (pass = 0; pass < PASSES; pass++) {
		start = now();
		for (done = 0; done < (uint64_t)st.st_size; done += block) {
			ssize_t ret = write ? pwrite(fd, buf, block, done) :
					      pread(fd, buf, block, done);

			if (ret != (ssize_t)block)
				die("%s at %llu: %zd bytes", argv[1],
				    (unsigned long long)done, ret);
		}
		keep_best(&best, start);
	}
	report(best);
	return 0;
}
