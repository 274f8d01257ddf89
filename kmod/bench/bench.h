/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the benchmark programs share: arguments, the clock, the result.
 *
 * Each measures one thing a few times and prints the nanoseconds of the best
 * time: what disturbs a measurement only ever adds to it. Under QEMU's
 * "-icount shift=0" a nanosecond is one instruction.
 */
#ifndef _FAMFS_BENCH_H
#define _FAMFS_BENCH_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PMD (2ULL << 20)

__attribute__((format(printf, 1, 2), noreturn))
static inline void die(const char *format, ...)
{
	int error = errno;
	va_list args;

	fprintf(stderr, "%s: ", program_invocation_short_name);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, ": %s\n", strerror(error));
	exit(1);
}

__attribute__((noreturn))
static inline void usage(const char *arguments)
{
	fprintf(stderr, "usage: %s %s\n", program_invocation_short_name,
		arguments);
	exit(2);
}

static inline uint64_t number(const char *text)
{
	char *end;
	uint64_t value;

	errno = 0;
	value = strtoull(text, &end, 0);
	if (errno || end == text || *end) {
		errno = EINVAL;
		die("'%s'", text);
	}
	return value;
}

static inline uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* The best of the times so far; 0 is none. */
static inline void keep_best(uint64_t *best, uint64_t start)
{
	uint64_t time = now() - start;

	if (!*best || time < *best)
		*best = time;
}

static inline void report(uint64_t nanoseconds)
{
	printf("%llu\n", (unsigned long long)nanoseconds);
}

/* George Marsaglia's xorshift64: the same positions in every run. */
static inline uint64_t random_next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static inline int open_file(const char *path, int flags)
{
	int fd = open(path, flags);

	if (fd < 0)
		die("open %s", path);
	return fd;
}

static inline void *map_range(int fd, uint64_t offset, uint64_t length)
{
	void *mem = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			 offset);

	if (mem == MAP_FAILED)
		die("mmap %llu bytes", (unsigned long long)length);
	return mem;
}

#endif /* _FAMFS_BENCH_H */
