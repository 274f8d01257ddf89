/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Results in the Test Anything Protocol: N lines "ok" or "not ok", then the
 * plan "1..N". It comes last, so that a program that dies early has none.
 */
#ifndef _FAMFS_TAP_H
#define _FAMFS_TAP_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int tap_run, tap_failed;

static inline void tap_start(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("TAP version 13");
}

__attribute__((format(printf, 1, 2)))
static inline void note(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("# ", stdout);
	vprintf(format, args);
	putchar('\n');
	va_end(args);
}

/* Something that the tests build upon is missing. */
__attribute__((format(printf, 1, 2), noreturn))
static inline void bail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("Bail out! ", stdout);
	vprintf(format, args);
	printf(" (errno: %s)\n", strerror(errno));
	va_end(args);
	exit(1);
}

__attribute__((format(printf, 2, 3)))
static inline bool ok(bool good, const char *format, ...)
{
	va_list args;

	tap_failed += !good;
	printf("%sok %d - ", good ? "" : "not ", ++tap_run);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	return good;
}

static inline bool is(long long got, long long want, const char *what)
{
	if (!ok(got == want, "%s", what))
		note("got %lld, expected %lld", got, want);
	return got == want;
}

/* A system call, given by its return value, succeeded. */
static inline bool works(long long ret, const char *what)
{
	int error = errno;

	if (!ok(ret >= 0, "%s", what))
		note("failed with %s", strerror(error));
	return ret >= 0;
}

/* A system call, given by its return value, failed with the error @want. */
static inline bool fails(long long ret, int want, const char *what)
{
	int error = errno;
	bool good = ret == -1 && error == want;

	if (ok(good, "%s: %s", what, strerrorname_np(want)))
		return true;
	if (ret == -1)
		note("failed with %s", strerrorname_np(error));
	else
		note("returned %lld", ret);
	return false;
}

static inline int tap_exit(void)
{
	printf("1..%d\n", tap_run);
	return !!tap_failed;
}

#endif /* _FAMFS_TAP_H */
