/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A user in the storm: a part of the device is its own, and it knows what is
 * there.
 */
#ifndef _FAMFS_STORM_USER_H
#define _FAMFS_STORM_USER_H

#include "storm.h"

#define PARTS 4
#define PART_PAGES 8
#define FILES 3

enum kind { EXTENTS, STRIPS, PIECES, NR_KINDS };

/* Pages that follow each other in the file and in the user's own part */
struct part {
	unsigned int first, pages;
	/* In pages from the start of the file */
	unsigned int at;
};

/* A file of a user: where its pages are */
struct layout {
	enum kind kind;
	unsigned int nr;
	struct part parts[PARTS];
	uint64_t size;
	char name[16];
	int fd;
	char *mem;
};

static uint64_t part_offset(const struct part *p)
{
	return unit_offset(worker, 0) + p->first * PAGE;
}

static int try_map(const struct layout *l)
{
	struct famfs_ioc_simple_extent extents[PARTS] = { 0 };
	struct famfs_ioc_piece pieces[PARTS];

	for (unsigned int i = 0; i < l->nr; i++) {
		const struct part *p = &l->parts[i];

		extents[i].offset = part_offset(p);
		extents[i].len = p->pages * PAGE;
		pieces[i] = (struct famfs_ioc_piece) {
			p->at * PAGE, part_offset(p), p->pages * PAGE,
		};
	}
	if (l->kind == STRIPS)
		return map_interleaved(l->fd, l->size, PMD, l->nr, extents);
	if (l->kind == EXTENTS)
		return map_simple(l->fd, l->size, l->nr, extents);
	return map_pieces(l->fd, l->size, l->nr, pieces);
}

static bool overlaps(const struct layout *l, const struct part *new)
{
	for (unsigned int i = 0; i < l->nr; i++) {
		const struct part *p = &l->parts[i];

		if (new->first < p->first + p->pages &&
		    p->first < new->first + new->pages)
			return true;
	}
	return false;
}

/* Few pages, with holes before, between and after them */
static struct part any_piece(unsigned int end)
{
	struct part p = {
		.pages = 1 + below(&state, PART_PAGES),
		.at = end + (one_in(&state, 2) ? below(&state, 4) : 0),
	};

	p.first = below(&state, UNITS * PAGES - p.pages);
	return p;
}

static void any_layout(struct layout *l)
{
	unsigned int nr = 1 + below(&state, PARTS), end = 0;

	l->kind = below(&state, NR_KINDS);
	for (l->nr = 0; l->nr < nr; ) {
		struct part p = {
			.first = below(&state, UNITS) * PAGES,
			.pages = PAGES,
			.at = end,
		};

		if (l->kind == PIECES)
			p = any_piece(end);
		if (overlaps(l, &p))
			continue;
		l->parts[l->nr++] = p;
		end = p.at + p.pages;
	}
	if (l->kind == PIECES && one_in(&state, 4))
		end += 1 + below(&state, 4);
	/* The last page has the first word, at least */
	l->size = end * PAGE;
	if (l->kind == PIECES)
		l->size -= below(&state, PAGE - sizeof(uint64_t));
}

/* The word at the start of a page of the file; NULL if that is in a hole */
static uint64_t *word_of(const struct layout *l, unsigned int page)
{
	for (unsigned int i = 0; i < l->nr; i++) {
		const struct part *p = &l->parts[i];

		if (page >= p->at && page < p->at + p->pages)
			return &shared->words[worker][p->first + page - p->at];
	}
	return NULL;
}

static unsigned int any_page(const struct layout *l)
{
	return below(&state, (l->size + PAGE - 1) / PAGE);
}

static void expect_word(uint64_t got, uint64_t want, const char *how)
{
	if (got != want)
		report(&shared->wrong_data, "%s: %#llx, expected %#llx", how,
		       (unsigned long long)got, (unsigned long long)want);
}

/* Zeros to read, and no place to write to */
static void use_hole(const struct layout *l, uint64_t pos)
{
	uint64_t got;

	if (went("pread of a hole", pread(l->fd, &got, sizeof(got), pos),
		 ERRORS(EIO)))
		expect_word(got, 0, "pread of a hole");
	if (went("pwrite to a hole", pwrite(l->fd, &pos, sizeof(pos), pos),
		 ERRORS(EIO, ENOSPC)))
		report(&shared->wrong_data, "pwrite to a hole succeeds");
	if (l->mem && guard(load, l->mem + pos, &got))
		expect_word(got, 0, "load from a hole");
	if (l->mem && survives(store, l->mem + pos, &pos))
		report(&shared->wrong_data, "a store to a hole succeeds");
	else if (l->mem)
		add(HOLES);
}

static void use_page(const struct layout *l, bool may_write)
{
	unsigned int page = any_page(l);
	uint64_t *word = word_of(l, page);
	uint64_t pos = page * PAGE, got, fresh;

	if (!word) {
		use_hole(l, pos);
		return;
	}
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
	unsigned int page = any_page(l);
	uint64_t *word = word_of(l, page);
	uint64_t pos = page * PAGE, want = word ? *word : 0, other = ~want, got;
	char *mem = mmap(NULL, l->size, PROT_READ | PROT_WRITE, MAP_PRIVATE,
			 l->fd, 0);

	if (!went("private mmap", mem == MAP_FAILED ? -1 : 0, ERRORS(EIO)))
		return;
	if (guard(load, mem + pos, &got))
		expect_word(got, want, "load of a private page");
	guard(store, mem + pos, &other);
	if (went("pread", pread(l->fd, &got, sizeof(got), pos), ERRORS(EIO)))
		expect_word(got, want, "pread after a private store");
	munmap(mem, l->size);
}

/* The map comes back as it was given, and the size stays */
static void ask_about(const struct layout *l)
{
	struct famfs_ioc_piece list[PARTS];
	struct famfs_ioc_pieces pieces = {
		.count = PARTS, .pieces = (uintptr_t)list,
	};
	struct stat st;

	if (went("GET_PIECES", ioctl(l->fd, FAMFSIOC_GET_PIECES, &pieces),
		 l->kind == STRIPS ? ERRORS(EIO, EOPNOTSUPP) : ERRORS(EIO)) &&
	    (pieces.file_size != l->size || pieces.count != l->nr ||
	     list[l->nr - 1].offset != part_offset(&l->parts[l->nr - 1]) ||
	     list[l->nr - 1].file_offset != l->parts[l->nr - 1].at * PAGE))
		report(&shared->wrong_data, "GET_PIECES tells another map");
	went("ftruncate to the size", ftruncate(l->fd, l->size), ERRORS(0));
	if (went("ftruncate", ftruncate(l->fd, l->size / 2), ERRORS(EPERM)) ||
	    fstat(l->fd, &st) || st.st_size != (off_t)l->size)
		report(&shared->wrong_data, "ftruncate has an effect");
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

/* More names, and another one: all are of the same file */
static void use_names(int root, const struct layout *l)
{
	char hard[32], soft[32], moved[32];
	struct stat st;

	snprintf(hard, sizeof(hard), "%shard", l->name);
	snprintf(soft, sizeof(soft), "%ssoft", l->name);
	snprintf(moved, sizeof(moved), "%smoved", l->name);
	if (went("link", linkat(root, l->name, root, hard, 0), ERRORS(EIO))) {
		add(LINKS);
		if (went("rename", renameat(root, hard, root, moved),
			 ERRORS(EIO)))
			add(RENAMES);
	}
	if (went("symlink", symlinkat(hard, root, soft), ERRORS(EIO))) {
		if (one_in(&state, 2))
			went("rename over a file",
			     renameat(root, moved, root, soft),
			     ERRORS(EIO, ENOENT));
		went("stat", fstatat(root, soft, &st, 0), ERRORS(EIO, ENOENT));
		went("unlink", unlinkat(root, soft, 0), ERRORS(EIO));
	}
	unlinkat(root, hard, 0);
	unlinkat(root, moved, 0);
}

static void use_pages(const struct layout *l, unsigned int most)
{
	for (unsigned int rounds = below(&state, most); rounds; rounds--)
		use_page(l, true);
}

static void use_file(int root, struct layout *l)
{
	l->mem = mmap(NULL, l->size, PROT_READ | PROT_WRITE, MAP_SHARED, l->fd,
		      0);
	if (!went("mmap", l->mem == MAP_FAILED ? -1 : 0, ERRORS(EIO)))
		l->mem = NULL;
	use_pages(l, 40);
	if (one_in(&state, 2))
		ask_about(l);
	if (one_in(&state, 4))
		use_privately(l);
	if (one_in(&state, 2))
		use_names(root, l);
}

/* The other files of the user have their memory beside it all the while */
static void end_file(int root, struct layout *l)
{
	pid_t child = 0;

	if (one_in(&state, 4))
		child = start_child(l);
	if (!one_in(&state, 4)) {
		went("unlink", unlinkat(root, l->name, 0), ERRORS(EIO));
		/* The child compares: nothing may change below it */
		if (!child)
			use_pages(l, 10);
	}
	if (l->mem)
		munmap(l->mem, l->size);
	close(l->fd);
	if (child > 0)
		end_child(child);
}

/* An open file with a map, or none */
static bool start_file(int root, struct layout *l)
{
	/* One that was left linked keeps its ranges; start afresh */
	if (unlinkat(root, l->name, 0))
		went("unlink", -1, ERRORS(ENOENT, EIO));
	if (one_in(&state, 8) &&
	    went("mkdir", mkdirat(root, l->name, 0700), ERRORS(EIO)))
		went("rmdir", unlinkat(root, l->name, AT_REMOVEDIR),
		     ERRORS(EIO));

	l->fd = openat(root, l->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
		       0600);
	if (!went("create", l->fd, ERRORS(EIO)))
		return false;
	any_layout(l);
	if (went("the map", try_map(l), ERRORS(EIO, EBUSY))) {
		add(l->kind == PIECES ? SMALL_MAPS : MAPS);
		return true;
	}
	if (errno == EBUSY)
		add(REFUSED);
	close(l->fd);
	return false;
}

/* Some files from their creation to their end, as far as the storm lets them */
static void user_round(void)
{
	struct layout files[FILES] = { 0 };
	unsigned int nr = 0;
	int root = open_root();

	if (root < 0)
		return;
	for (unsigned int tries = 1 + below(&state, FILES); tries; tries--) {
		struct layout *l = &files[nr];

		snprintf(l->name, sizeof(l->name), "%d%c", worker, 'a' + nr);
		nr += start_file(root, l);
	}
	for (unsigned int i = 0; i < nr; i++)
		use_file(root, &files[i]);
	for (unsigned int i = 0; i < nr; i++)
		end_file(root, &files[i]);
	close(root);
}

#endif /* _FAMFS_STORM_USER_H */
