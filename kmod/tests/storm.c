// SPDX-License-Identifier: GPL-2.0
/*
 * Everything at once: storm DEVICE MOUNTPOINT [SECONDS [SEED]].
 *
 * Four users create, map, fork, touch, read, write, link, rename and unlink
 * files, large ones and some of a few pages. One process mounts and unmounts
 * below them, one poisons memory and takes the driver away. What each call may
 * answer is known all the same, and what a user wrote into its part of the
 * device stays there through all of it. The storm lasts SECONDS, and longer
 * until each thing that it counts has happened, but not by more than
 * MORE_SECONDS.
 */
#include <sys/prctl.h>
#include <time.h>

#include "driver.h"
#include "leak.h"
#include "storm_user.h"

#define SECONDS 10
/*
 * How much longer the storm goes on while something has not happened yet. On
 * a busy machine, minutes can pass before the wrecker meets a living mount.
 */
#define MORE_SECONDS 180
#define MOUNTER USERS
#define WRECKER (USERS + 1)
#define WORKERS (USERS + 2)
/* A worker that takes longer to end hangs */
#define END_SECONDS 240

static const char * const counter_names[NR_COUNTERS] = {
	"mounts", "unmounts", "pages poisoned", "drivers unbound",
	"maps of 2 MiB", "maps of pages",
	"maps refused because a range is in use", "stores", "loads",
	"accesses ended by SIGBUS", "stores to holes refused", "forks", "links",
	"renames",
};

static void inject(char *mem, uint64_t *word)
{
	(void)word;
	/* EFAULT and ENXIO: somebody else was faster */
	if (went("MADV_HWPOISON", madvise(mem, PAGE, MADV_HWPOISON),
		 ERRORS(EFAULT, ENXIO, EBUSY, EHWPOISON)))
		add(POISONS);
}

static bool try_mount(void)
{
	/* The old mount is in use; the driver, or just the node, is away */
	if (!went("mount", mount_famfs(one_in(&state, 2) ? "" : "strict"),
		  ERRORS(EBUSY, ENOENT, ENXIO, EOPNOTSUPP)))
		return false;
	add(MOUNTS);
	return true;
}

static void mounter_round(void)
{
	int flags = one_in(&state, 2) ? MNT_DETACH : 0;

	nap(400);
	if (!went("umount", umount2(mnt, flags), ERRORS(EBUSY)))
		return;
	add(UNMOUNTS);
	while (!try_mount() && !stopped())
		nap(100);
}

/* All of the wrecker's unit, or one page of it */
static int map_bad(int fd, uint64_t page)
{
	struct famfs_ioc_simple_extent extent = {
		.offset = unit_offset(USERS, 0), .len = PMD,
	};
	struct famfs_ioc_piece piece = {
		.file_offset = page, .offset = extent.offset + page,
		.len = PAGE,
	};

	if (one_in(&state, 2))
		return map_simple(fd, PMD, 1, &extent);
	return map_pieces(fd, PMD, 1, &piece);
}

static void poison(void)
{
	uint64_t page = below(&state, PAGES) * PAGE, word;
	int root = open_root(), fd;
	char *mem;

	if (root < 0)
		return;
	unlinkat(root, "bad", 0);
	fd = openat(root, "bad", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	close(root);
	if (!went("create", fd, ERRORS(EIO)))
		return;
	if (!went("the map", map_bad(fd, page), ERRORS(EIO))) {
		close(fd);
		return;
	}
	mem = mmap(NULL, PMD, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (went("mmap", mem == MAP_FAILED ? -1 : 0, ERRORS(EIO))) {
		/* Either call returns, or the signal is its answer */
		if (guard(load, mem + page, &word) &&
		    !guard(inject, mem + page, &word))
			add(POISONS);
		munmap(mem, PMD);
	}
	close(fd);
}

static void wrecker_round(void)
{
	static bool turn;

	nap(3000);
	turn = !turn;
	if (turn) {
		poison();
		return;
	}
	if (!went("unbind", unbind(), ERRORS(0)))
		return;
	add(UNBINDS);
	nap(200);
	went("bind", bind_again(), ERRORS(0));
}

static void run_worker(void)
{
	void (*round)(void) = worker == MOUNTER ? mounter_round :
			      worker == WRECKER ? wrecker_round : user_round;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	state = seed * WORKERS + worker;
	catch_sigbus();
	while (!stopped())
		round();
}

/* False for a worker that hangs; it cannot even be waited for */
static bool ends_by(pid_t pid, time_t deadline)
{
	int status;

	while (!waitpid(pid, &status, WNOHANG)) {
		if (time(NULL) > deadline)
			return false;
		usleep(50000);
	}
	if (status)
		report(&shared->wrong_errno, "%d ended with status %#x", pid,
		       status);
	return true;
}

/*
 * The mounter may have stopped at any point. A driver that is bound afresh has
 * fresh struct pages: none is bad any more.
 */
static void settle(void)
{
	time_t deadline = time(NULL) + END_SECONDS;

	while (!umount(mnt) || errno != EINVAL) {
		if (time(NULL) > deadline)
			bail("%s stays busy", mnt);
		usleep(50000);
	}
	if (unbind() < 0 || bind_again())
		bail("bind the driver again");
	while (mount_famfs("")) {
		if (time(NULL) > deadline)
			bail("mount after the storm");
		usleep(50000);
	}
}

static uint64_t wrong_words(int user)
{
	char name[16], *mem;
	uint64_t wrong = 0;
	int fd;

	snprintf(name, sizeof(name), "after%d", user);
	fd = make_file(name, unit_offset(user, 0), UNITS * PMD);
	mem = map_file(fd, UNITS * PMD, PROT_READ, MAP_SHARED);
	for (uint64_t page = 0; page < UNITS * PAGES; page++)
		wrong += *(uint64_t *)(mem + page * PAGE) !=
			 shared->words[user][page];
	munmap(mem, UNITS * PMD);
	close(fd);
	unlink(at(name));
	return wrong;
}

/* All the users' pages hold what the table says: zero to begin with */
static void clear_pages(void)
{
	int fd = make_file("before", BASE, USERS * UNITS * PMD);
	char *mem = map_file(fd, USERS * UNITS * PMD, PROT_READ | PROT_WRITE,
			     MAP_SHARED);

	for (uint64_t page = 0; page < USERS * UNITS * PAGES; page++)
		*(uint64_t *)(mem + page * PAGE) = 0;
	munmap(mem, USERS * UNITS * PMD);
	close(fd);
	unlink(at("before"));
}

static bool everything_happened(void)
{
	for (int i = 0; i < NR_COUNTERS; i++)
		if (!__atomic_load_n(&shared->counters[i], __ATOMIC_RELAXED))
			return false;
	return true;
}

static void wait_out(uint64_t seconds)
{
	time_t start = time(NULL);
	uint64_t passed;

	do {
		usleep(200000);
		passed = time(NULL) - start;
	} while (passed < seconds || (passed < seconds + MORE_SECONDS &&
				      !everything_happened()));
	if (passed > seconds)
		note("the storm took %llu seconds", (unsigned long long)passed);
}

static bool blow(uint64_t seconds)
{
	pid_t pids[WORKERS];
	time_t deadline;
	bool ended = true;

	fflush(stdout);
	for (worker = 0; worker < WORKERS; worker++) {
		pids[worker] = fork();
		if (!pids[worker]) {
			run_worker();
			_exit(0);
		}
	}
	wait_out(seconds);
	__atomic_store_n(&shared->stop, true, __ATOMIC_RELAXED);
	deadline = time(NULL) + END_SECONDS;
	for (int i = 0; i < WORKERS; i++) {
		if (ends_by(pids[i], deadline))
			continue;
		note("worker %d does not end", i);
		ended = false;
	}
	return ended;
}

int main(int argc, char **argv)
{
	struct held before;

	parse_random_arguments(argc, argv, SECONDS);
	set_up(argc, argv);
	find_driver();
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		bail("shared memory");
	note("%llu seconds, seed %llu", (unsigned long long)count,
	     (unsigned long long)seed);
	clear_pages();
	if (umount(mnt))
		bail("umount %s", mnt);
	before = held_by_module();
	if (mount_famfs(""))
		bail("mount %s", mnt);

	if (!ok(blow(count), "all workers end"))
		return tap_exit();
	settle();
	for (int i = 0; i < NR_COUNTERS; i++)
		ok(shared->counters[i], "%llu %s",
		   (unsigned long long)shared->counters[i], counter_names[i]);
	is(shared->wrong_data, 0, "no wrong data during the storm");
	is(shared->wrong_errno, 0, "no answer that the storm does not explain");
	for (int user = 0; user < USERS; user++)
		is(wrong_words(user), 0, "all data of a user is there");
	works(umount(mnt), "unmount");
	expect_held(&before);
	return tap_exit();
}
