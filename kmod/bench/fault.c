// SPDX-License-Identifier: GPL-2.0
/*
 * Faults of 2 MiB: the first touch of each 2 MiB of a mapping. "first" is what
 * the range costs that nobody has mapped since the mount, the others what it
 * costs in every later mapping. Fails if the kernel maps smaller pages.
 */
#include <stdbool.h>
#include <sys/resource.h>

#include "bench.h"

#define PASSES 5

static long faults_taken(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt + usage.ru_majflt;
}

/* The end of each 2 MiB is there as soon as its start is, or was not mapped. */
static void check_size(const volatile char *mem, uint64_t length)
{
	long before = faults_taken();
	uint64_t at;

	for (at = 0; at < length; at += PMD)
		(void)mem[at + PMD - 1];
	if (faults_taken() - before >= (long)(length / PMD)) {
		errno = ENOTSUP;
		die("mapped by less than 2 MiB");
	}
}

static void touch(volatile char *mem, uint64_t length, bool write)
{
	uint64_t at;

	for (at = 0; at < length; at += PMD) {
		if (write)
			mem[at] = 0;
		else
			(void)mem[at];
	}
}

int main(int argc, char **argv)
{
	uint64_t offset, length, start, best = 0;
	int fd, pass, passes = PASSES;
	bool write;

	if (argc != 5)
		usage("first|read|write PATH OFFSET LENGTH");
	if (!strcmp(argv[1], "first"))
		passes = 1;
	write = !strcmp(argv[1], "write");
	fd = open_file(argv[2], O_RDWR);
	offset = number(argv[3]);
	length = number(argv[4]);

	for (pass = 0; pass < passes; pass++) {
		char *mem = map_range(fd, offset, length);

		start = now();
		touch(mem, length, write);
		keep_best(&best, start);
		check_size(mem, length);
		munmap(mem, length);
	}
	report(best / (length / PMD));
	return 0;
}
