/* SPDX-License-Identifier: GPL-2.0 */
/* What the workers of the storm share: results, and how they look at memory. */
#ifndef _FAMFS_STORM_H
#define _FAMFS_STORM_H

#include "random.h"

#define USERS 4
#define UNITS 12
#define BASE (32 * MIB)
#define PAGES (PMD / PAGE)
#define MAX_NOTES 20

enum {
	MOUNTS, UNMOUNTS, POISONS, UNBINDS, MAPS, SMALL_MAPS, REFUSED, STORES,
	LOADS, SIGNALS, HOLES, FORKS, LINKS, RENAMES, NR_COUNTERS
};

/* All of this is in memory that the workers share */
static struct shared {
	bool stop;
	int notes;
	uint64_t wrong_data, wrong_errno;
	uint64_t counters[NR_COUNTERS];
	/* The last word written to each page of each user */
	uint64_t words[USERS][UNITS * PAGES];
} *shared;

static int worker;
static uint64_t state;

static void add(int counter)
{
	__atomic_add_fetch(&shared->counters[counter], 1, __ATOMIC_RELAXED);
}

static bool stopped(void)
{
	return __atomic_load_n(&shared->stop, __ATOMIC_RELAXED);
}

__attribute__((format(printf, 2, 3)))
static void report(uint64_t *counter, const char *format, ...)
{
	char text[256];
	va_list args;

	__atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
	if (__atomic_add_fetch(&shared->notes, 1, __ATOMIC_RELAXED) > MAX_NOTES)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	note("worker %d: %s", worker, text);
}

/* A call ended well, or with one of the errors that the storm explains */
static bool went(const char *call, long long ret, const int *errors)
{
	int error = errno;

	if (ret >= 0)
		return true;
	for (; *errors; errors++)
		if (*errors == error)
			return false;
	report(&shared->wrong_errno, "%s: %s", call, strerrorname_np(error));
	return false;
}

#define ERRORS(...) ((const int[]) { __VA_ARGS__, 0 })

static void nap(unsigned int max_ms)
{
	usleep(1 + below(&state, max_ms * 1000));
}

/* The device's bytes of a unit of a user */
static uint64_t unit_offset(int user, unsigned int unit)
{
	return BASE + (user * UNITS + unit) * PMD;
}

/*
 * A descriptor of the mount's root: without one, a file could be created in
 * the directory below the mount point. It keeps the mount busy.
 */
static int open_root(void)
{
	struct statfs sfs;
	int root = open(mnt, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (!went("open the root", root, ERRORS(EIO)))
		return -1;
	if (!fstatfs(root, &sfs) && sfs.f_type == FAMFS_STATFS_MAGIC) {
		/* The mount may be strict */
		went("EDIT", ioctl(root, FAMFSIOC_EDIT), ERRORS(0));
		return root;
	}
	close(root);
	nap(5);
	return -1;
}

static sigjmp_buf escape;
static volatile bool guarded;

/*
 * An access to memory that is gone ends here. Who has a device mapped that is
 * removed is told so at any time; the access that comes next tells it again.
 */
static void on_bus(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	if (info->si_code == BUS_MCEERR_AO)
		return;
	if (!guarded || (info->si_code != BUS_ADRERR &&
			 info->si_code != BUS_MCEERR_AR)) {
		report(&shared->wrong_errno, "SIGBUS with code %d at %p",
		       info->si_code, info->si_addr);
		_exit(1);
	}
	siglongjmp(escape, 1);
}

static void catch_sigbus(void)
{
	struct sigaction action = {
		.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO | SA_RESTART,
	};

	sigaction(SIGBUS, &action, NULL);
}

/* Call @access; false if that was ended by a signal. */
static bool survives(void (*access)(char *mem, uint64_t *word), char *mem,
		  uint64_t *word)
{
	if (sigsetjmp(escape, 1)) {
		guarded = false;
		return false;
	}
	guarded = true;
	access(mem, word);
	guarded = false;
	return true;
}

/* The same, where only what the storm does can be the reason for a signal. */
static bool guard(void (*access)(char *mem, uint64_t *word), char *mem,
		  uint64_t *word)
{
	if (survives(access, mem, word))
		return true;
	add(SIGNALS);
	return false;
}

static void load(char *mem, uint64_t *word)
{
	*word = *(volatile uint64_t *)mem;
}

static void store(char *mem, uint64_t *word)
{
	*(volatile uint64_t *)mem = *word;
}

#endif /* _FAMFS_STORM_H */
