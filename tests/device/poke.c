// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * poke FILE OFFSET LENGTH: maps a range of FILE and stores a word into every
 * page of it. Prints how many pages it wrote, and how many of the words it
 * reads back. FILE is a device or /dev/mem; OFFSET and LENGTH are in bytes,
 * decimal or 0x.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE 4096
#define WORD 0x5ca1ab1e0ddba11ULL

int main(int argc, char **argv)
{
	unsigned long long offset, length, page, kept = 0;
	int fd;

	if (argc != 4) {
		fprintf(stderr, "usage: poke FILE OFFSET LENGTH\n");
		return 2;
	}
	offset = strtoull(argv[2], NULL, 0);
	length = strtoull(argv[3], NULL, 0);
	fd = open(argv[1], O_RDWR | O_SYNC);
	if (fd < 0) {
		perror(argv[1]);
		return 1;
	}
	char *base = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			  (off_t)offset);
	if (base == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	for (page = 0; page < length; page += PAGE) {
		volatile uint64_t *word = (volatile uint64_t *)(base + page);

		*word = WORD;
		kept += *word == WORD;
	}
	msync(base, length, MS_SYNC);
	printf("%llu pages, %llu words kept\n", length / PAGE, kept);
	return 0;
}
