/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A user in the storm: a part of the device is its own, and it knows what is
 * there.
 */
#ifndef _FAMFS_STORM_USER_H
#define _FAMFS_STORM_USER_H

#include "storm.h"

#define EXTENTS 4
#define NAMES 3

/* A file of a user: where its units are */
struct layout {
	unsigned int nr, units[EXTENTS];
	bool interleaved;
	int fd;
	char *mem;
};

static int try_map(const struct layout *l)
{
	struct famfs_ioc_simple_extent extents[EXTENTS] = { 0 };

	for (unsigned int i = 0; i < l->nr; i++) {
		extents[i].offset = unit_offset(worker, l->units[i]);
		extents[i].len = PMD;
	}
	if (l->interleaved)
		return map_interleaved(l->fd, l->nr * PMD, PMD, l->nr, extents);
	return map_simple(l->fd, l->nr * PMD, l->nr, extents);
}

static bool has_unit(const struct layout *l, unsigned int unit)
{
	for (unsigned int i = 0; i < l->nr; i++)
		if (l->units[i] == unit)
			return true;
	return false;
}

static void any_layout(struct layout *l)
{
	unsigned int nr = 1 + below(&state, EXTENTS);

	l->interleaved = one_in(&state, 2);
	for (l->nr = 0; l->nr < nr; ) {
		unsigned int unit = below(&state, UNITS);

		if (!has_unit(l, unit))
			l->units[l->nr++] = unit;
	}
}

static void expect_word(uint64_t got, uint64_t want, const char *how)
{
	if (got != want)
		report(&shared->wrong_data, "%s: %#llx, expected %#llx", how,
		       (unsigned long long)got, (unsigned long long)want);
}

static uint64_t *word_of(const struct layout *l, unsigned int index,
			 unsigned int page)
{
	return &shared->words[worker][l->units[index] * PAGES + page];
}

static void use_page(const struct layout *l, bool may_write)
{
	unsigned int index = below(&state, l->nr);
	unsigned int page = below(&state, PAGES);
	uint64_t pos = index * PMD + page * PAGE, got, fresh;
	uint64_t *word = word_of(l, index, page);

	fresh = random_u64(&state);
	switch (below(&state, may_write ? 5 : 2)) {
	case 0:
		if (went("pread", pread(l->fd, &got, sizeof(got), pos),
			 ERRORS(EIO)))
			expect_word(got, *word, "pread");
		break;
	case 1:
		if (l->mem && guard(load, l->mem + pos, &got)) {
			expect_word(got, *word, "load");
			add(LOADS);
		}
		break;
	case 2:
		if (went("pwrite", pwrite(l->fd, &fresh, sizeof(fresh), pos),
			 ERRORS(EIO)))
			*word = fresh;
		break;
	default:
		/* A store that a signal ends leaves the old word */
		if (l->mem && guard(store, l->mem + pos, &fresh)) {
			*word = fresh;
			add(STORES);
		}
	}
}

/* What is stored in a private copy must not reach the file */
static void use_privately(const struct layout *l)
{
	unsigned int index = below(&state, l->nr);
	unsigned int page = below(&state, PAGES);
	uint64_t pos = index * PMD + page * PAGE;
	uint64_t want = *word_of(l, index, page), other = ~want, got;
	char *mem = mmap(NULL, l->nr * PMD, PROT_READ | PROT_WRITE, MAP_PRIVATE,
			 l->fd, 0);

	if (!went("private mmap", mem == MAP_FAILED ? -1 : 0, ERRORS(EIO)))
		return;
	if (guard(load, mem + pos, &got))
		expect_word(got, want, "load of a private page");
	guard(store, mem + pos, &other);
	if (went("pread", pread(l->fd, &got, sizeof(got), pos), ERRORS(EIO)))
		expect_word(got, want, "pread after a private store");
	munmap(mem, l->nr * PMD);
}

/* The child has the mapping and the descriptor when the parent drops both */
static pid_t start_child(const struct layout *l)
{
	pid_t child = fork();

	if (child) {
		if (went("fork", child, ERRORS(0)))
			add(FORKS);
		return child;
	}
	for (int i = 0; i < 20; i++)
		use_page(l, false);
	_exit(0);
}

static void end_child(pid_t child)
{
	int status;

	waitpid(child, &status, 0);
	if (status)
		report(&shared->wrong_errno, "a child ended with status %#x",
		       status);
}

static void use_file(int root, const char *name, struct layout *l)
{
	pid_t child = 0;
	int rounds;

	l->mem = mmap(NULL, l->nr * PMD, PROT_READ | PROT_WRITE, MAP_SHARED,
		      l->fd, 0);
	if (!went("mmap", l->mem == MAP_FAILED ? -1 : 0, ERRORS(EIO)))
		l->mem = NULL;
	for (rounds = below(&state, 40); rounds; rounds--)
		use_page(l, true);
	if (one_in(&state, 4))
		use_privately(l);
	if (one_in(&state, 4))
		child = start_child(l);
	if (!one_in(&state, 4))
		went("unlink", unlinkat(root, name, 0), ERRORS(EIO));
	if (l->mem)
		munmap(l->mem, l->nr * PMD);
	close(l->fd);
	if (child > 0)
		end_child(child);
}

/* One file from its creation to its end, or as far as the storm lets it */
static void user_round(void)
{
	static const char * const names[NAMES] = { "a", "b", "c" };
	struct layout l = { 0 };
	char name[16];
	int root = open_root();

	if (root < 0)
		return;
	snprintf(name, sizeof(name), "%d%s", worker,
		 names[below(&state, NAMES)]);
	/* One that was left linked keeps its ranges; start afresh */
	if (unlinkat(root, name, 0))
		went("unlink", -1, ERRORS(ENOENT, EIO));
	if (one_in(&state, 8) &&
	    went("mkdir", mkdirat(root, name, 0700), ERRORS(EIO)))
		went("rmdir", unlinkat(root, name, AT_REMOVEDIR), ERRORS(EIO));

	l.fd = openat(root, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (went("create", l.fd, ERRORS(EIO))) {
		any_layout(&l);
		if (went("MAP_CREATE", try_map(&l), ERRORS(EIO, EBUSY))) {
			add(MAPS);
			use_file(root, name, &l);
		} else {
			if (errno == EBUSY)
				add(REFUSED);
			close(l.fd);
		}
	}
	close(root);
}

#endif /* _FAMFS_STORM_USER_H */
