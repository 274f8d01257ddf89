// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * faults FILE...: maps each file, reads a byte of every page, and prints the
 * number of page faults, the file's size in bytes, and its name.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096

static long faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt + usage.ru_majflt;
}

static long faults_of_reading(const volatile char *base, off_t size)
{
	long before = faults();

	for (off_t offset = 0; offset < size; offset += PAGE)
		(void)base[offset];
	return faults() - before;
}

static int count(const char *path)
{
	struct stat stat;
	char *base;
	int fd = open(path, O_RDONLY);

	if (fd < 0 || fstat(fd, &stat) < 0)
		return -1;
	base = mmap(NULL, stat.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED)
		return -1;
	/* Reads nothing, but faults in the pages of the code itself. */
	faults_of_reading(base, 0);
	printf("%ld %lld %s\n", faults_of_reading(base, stat.st_size),
	       (long long)stat.st_size, path);
	munmap(base, stat.st_size);
	return close(fd);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (count(argv[i]) < 0) {
			perror(argv[i]);
			return 1;
		}
	}
	return 0;
}
