// SPDX-License-Identifier: GPL-2.0
/*
 * Random and damaged requests from several threads on the same files:
 * fuzz DEVICE MOUNTPOINT [CALLS [SEED]].
 *
 * Each thread's calls follow from the seed; how the threads interleave does
 * not. What the module may answer is worked out here, from the interface's
 * description alone.
 */
#include <pthread.h>

#include "fuzz_request.h"
#include "leak.h"

#define CALLS 100000
#define THREADS 4
#define FILES 6
/* Pages of 16 GiB */
#define MAX_UNITS (4 << 20)
#define MAX_NOTES 10
/* What is mapped of a file, which can be larger than any memory */
#define LONGEST (256 * MIB)

/* A file of the mount, also when it has no name any more */
struct node {
	/* One for the name, one for each descriptor */
	int refs;
	bool has_name, has_map;
	struct expected_map map;
};

/* A thread's descriptor, and perhaps mapping, of a file */
struct handle {
	struct node *node;
	int fd;
	bool writable;
	char *mem;
	uint64_t size;
};

struct worker {
	pthread_t thread;
	int number;
	uint64_t state, calls;
	struct arena arena;
	struct handle handles[FILES];
	/* Calls of MAP_CREATE by generation, and how they ended */
	uint64_t accepted[GENERATIONS], refused[GENERATIONS];
};

/* Guards all nodes, and who has what of the device */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct node *named[FILES];
static struct node *owners[MAX_UNITS];

/* What went wrong, and how often */
static uint64_t bad_errno, bad_answer, bad_map, overlaps, bad_io;

__attribute__((format(printf, 3, 4)))
static void report(uint64_t *counter, const struct worker *w,
		   const char *format, ...)
{
	static int notes;
	char text[256];
	va_list args;

	__atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);
	if (__atomic_add_fetch(&notes, 1, __ATOMIC_RELAXED) > MAX_NOTES)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	flockfile(stdout);
	note("thread %d, call %llu, seed %llu: %s", w->number,
	     (unsigned long long)w->calls, (unsigned long long)seed, text);
	funlockfile(stdout);
}

static void set_owner(const struct node *node, struct node *owner,
		      const struct worker *w)
{
	const struct expected_map *map = &node->map;

	for (uint32_t i = 0; i < map->nr_spans; i++) {
		uint64_t unit = map->spans[i].offset / PAGE;
		uint64_t end = unit + map->spans[i].len / PAGE;

		for (; unit < end; unit++) {
			if (owner && owners[unit])
				report(&overlaps, w,
				       "page %llu has two owners",
				       (unsigned long long)unit);
			owners[unit] = owner;
		}
	}
}

/* Before the real thing: later the range may be another file's already */
static void put_node(struct node *node, const struct worker *w)
{
	if (--node->refs)
		return;
	if (node->has_map)
		set_owner(node, NULL, w);
	free(node);
}

static const char *file_name(int slot)
{
	static const char * const names[FILES] = {
		"fuzz0", "fuzz1", "fuzz2", "fuzz3", "fuzz4", "fuzz5",
	};

	return names[slot];
}

static int open_file(int slot, int flags)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", mnt, file_name(slot));
	return open(path, flags, 0644);
}

static void open_handle(struct worker *w, int slot)
{
	struct handle *h = &w->handles[slot];
	int flags = one_in(&w->state, 8) ? O_RDONLY : O_RDWR;

	pthread_mutex_lock(&lock);
	h->fd = open_file(slot, flags | O_CREAT);
	if (h->fd < 0)
		bail("open %s", file_name(slot));
	if (!named[slot]) {
		named[slot] = calloc(1, sizeof(*named[slot]));
		if (!named[slot])
			bail("memory");
		named[slot]->refs = 1;
		named[slot]->has_name = true;
	}
	h->node = named[slot];
	h->node->refs++;
	pthread_mutex_unlock(&lock);
	h->writable = flags == O_RDWR;
}

static void unmap_handle(struct handle *h)
{
	if (h->mem)
		munmap(h->mem, h->size);
	h->mem = NULL;
}

static void close_handle(struct worker *w, int slot)
{
	struct handle *h = &w->handles[slot];

	if (!h->node)
		return;
	pthread_mutex_lock(&lock);
	put_node(h->node, w);
	pthread_mutex_unlock(&lock);
	h->node = NULL;
	unmap_handle(h);
	close(h->fd);
}

static void unlink_file(struct worker *w, int slot)
{
	char path[4096];

	snprintf(path, sizeof(path), "%s/%s", mnt, file_name(slot));
	pthread_mutex_lock(&lock);
	if (named[slot]) {
		named[slot]->has_name = false;
		put_node(named[slot], w);
		named[slot] = NULL;
		if (unlink(path))
			report(&bad_io, w, "unlink: %s",
			       strerrorname_np(errno));
	}
	pthread_mutex_unlock(&lock);
}

/* The map as expected, if somebody has made sure that there is one */
static bool known_map(const struct handle *h, struct expected_map *map)
{
	bool has_map;

	pthread_mutex_lock(&lock);
	has_map = h->node->has_map;
	if (has_map)
		*map = h->node->map;
	pthread_mutex_unlock(&lock);
	return has_map;
}

static void check_map(struct worker *w, const struct handle *h)
{
	struct expected_map map;
	const char *wrong;

	if (!known_map(h, &map))
		return;
	wrong = compare_map(h->fd, &map);
	if (wrong)
		report(&bad_map, w, "%s tells another map (errno %s)", wrong,
		       strerrorname_np(errno));
}

static void map_accepted(struct worker *w, const struct handle *h,
			 const struct request *r)
{
	pthread_mutex_lock(&lock);
	if (h->node->has_map)
		report(&bad_map, w, "a file got two maps");
	expect_map(&h->node->map, r);
	h->node->has_map = true;
	set_owner(h->node, h->node, w);
	pthread_mutex_unlock(&lock);
	check_map(w, h);
}

static void call_create(struct worker *w, int slot)
{
	struct handle *h = &w->handles[slot];
	enum answer expected;
	struct request r;
	int error;

	make_request(&r, &w->arena, &w->state, dev_size);
	expected = h->writable ? judge(&r, dev_size) : NOT_WRITABLE;
	error = ioctl(h->fd, r.command, r.argument) ? errno : 0;
	if (!is_documented(error))
		report(&bad_errno, w, "MAP_CREATE: %s", strerrorname_np(error));
	else if (!answers(expected, error))
		report(&bad_answer, w, "a request that is %s: %s",
		       answer_names[expected],
		       error ? strerrorname_np(error) : "accepted");

	if (!error) {
		w->accepted[r.generation]++;
		map_accepted(w, h, &r);
		return;
	}
	w->refused[r.generation]++;
	/* There is nothing more to be had from it */
	if (error == EEXIST && one_in(&w->state, 3)) {
		unlink_file(w, slot);
		close_handle(w, slot);
	}
}

/* The list of an empty file is of no bytes, which can be anywhere */
static bool writes_nothing(unsigned long command,
			   const struct expected_map *map)
{
	return command == FAMFSIOC_MAP_GETEXT && !map->nr_spans;
}

static void call_get(struct worker *w, int slot)
{
	static const unsigned long commands[] = {
		FAMFSIOC_MAP_GET, FAMFSIOC_MAP_GETEXT, FAMFSIOC_MAP_GET_V2,
	};
	/* EOVERFLOW is what compare_map() expects of some maps */
	struct handle *h = &w->handles[slot];
	unsigned long command =
		commands[below(&w->state, ARRAY_SIZE(commands))];
	struct expected_map map = { 0 };
	bool has_map = known_map(h, &map), good;
	void *out = any_place(&w->arena, &w->state, &good);
	int error = ioctl(h->fd, command, out) ? errno : 0;

	if (error && error != EFAULT && error != ENODATA && error != EOVERFLOW)
		report(&bad_errno, w, "MAP_GET: %s", strerrorname_np(error));
	/* Where no map is known, another thread may have given it one */
	if ((has_map && error == ENODATA) || (good && error == EFAULT) ||
	    (!good && !error && !writes_nothing(command, &map)))
		report(&bad_answer, w, "%#lx to %s memory: %s", command,
		       good ? "good" : "bad",
		       error ? strerrorname_np(error) : "success");
	check_map(w, h);
}

static void call_other(struct worker *w, int slot)
{
	unsigned long command = FAMFSIOC_NOP;

	if (ioctl(w->handles[slot].fd, command, random_u64(&w->state)))
		report(&bad_errno, w, "NOP: %s", strerrorname_np(errno));

	/* Numbers of ours with another size or direction are not ours */
	command = _IOC(below(&w->state, 4), FAMFS_IOC_MAGIC,
		       0x50 + below(&w->state, 16),
		       512 + below(&w->state, 8192));
	if (ioctl(w->handles[slot].fd, command, w->arena.pages) != -1 ||
	    errno != ENOTTY)
		report(&bad_errno, w, "ioctl %#lx: not ENOTTY", command);
}

/* A directory knows one of the ioctls, from a process that may use it */
static void call_directory(struct worker *w)
{
	int dir = open(mnt, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	unsigned long command;

	if (dir < 0 || ioctl(dir, FAMFSIOC_EDIT, random_u64(&w->state)))
		report(&bad_errno, w, "EDIT: %s", strerrorname_np(errno));
	command = _IOC(below(&w->state, 4), FAMFS_IOC_MAGIC,
		       0x50 + below(&w->state, 16), below(&w->state, 8192));
	if (command != FAMFSIOC_EDIT &&
	    (ioctl(dir, command, w->arena.pages) != -1 || errno != ENOTTY))
		report(&bad_errno, w, "ioctl %#lx of a directory: not ENOTTY",
		       command);
	close(dir);
}

/* How many of @len bytes from @pos on are on the device */
static uint64_t writable_bytes(const struct expected_map *map, uint64_t pos,
			       uint64_t len)
{
	uint64_t bytes = 0;

	while (bytes < len && has_memory(map, pos + bytes))
		bytes++;
	return bytes;
}

/* What a file of a known size has to do for any of its bytes */
static void call_io(struct worker *w, int slot)
{
	struct handle *h = &w->handles[slot];
	struct expected_map map;
	char bytes[64];
	uint64_t pos;
	ssize_t got, want;

	if (!known_map(h, &map)) {
		got = pread(h->fd, bytes, sizeof(bytes), 0);
		if (got < 0 && errno != ENODATA)
			report(&bad_io, w, "read: %s", strerrorname_np(errno));
		return;
	}
	pos = map.file_size ? below(&w->state, map.file_size) : 0;
	want = map.file_size - pos < sizeof(bytes) ? map.file_size - pos :
						     sizeof(bytes);
	got = pread(h->fd, bytes, sizeof(bytes), pos);
	if (got == want && h->writable) {
		want = writable_bytes(&map, pos, want);
		got = pwrite(h->fd, bytes, sizeof(bytes), pos);
		if (got < 0 && errno == ENOSPC)
			got = 0;
	}
	if (got != want)
		report(&bad_io, w, "%zd of %zd bytes at %llu: %s", got, want,
		       (unsigned long long)pos, strerrorname_np(errno));
}

/* Map the file and touch it; or unmap what was touched some calls ago */
static void call_mmap(struct worker *w, int slot)
{
	struct handle *h = &w->handles[slot];
	struct expected_map map;
	volatile char *byte;

	if (h->mem) {
		unmap_handle(h);
		return;
	}
	if (!known_map(h, &map) || !map.file_size)
		return;
	h->size = map.file_size < LONGEST ? map.file_size : LONGEST;
	h->mem = mmap(NULL, h->size, PROT_READ, MAP_SHARED, h->fd, 0);
	if (h->mem == MAP_FAILED) {
		h->mem = NULL;
		report(&bad_io, w, "mmap: %s", strerrorname_np(errno));
		return;
	}
	byte = h->mem + below(&w->state, h->size);
	(void)*byte;
}

static void *work(void *argument)
{
	struct worker *w = argument;

	for (; w->calls < count / THREADS; w->calls++) {
		int slot = below(&w->state, FILES);

		if (!w->handles[slot].node)
			open_handle(w, slot);
		switch (below(&w->state, 20)) {
		case 0:
			unlink_file(w, slot);
			break;
		case 1:
		case 2:
			close_handle(w, slot);
			break;
		case 3:
		case 4:
			call_mmap(w, slot);
			break;
		case 5:
			call_io(w, slot);
			break;
		case 6:
		case 7:
			call_get(w, slot);
			break;
		case 8:
			call_other(w, slot);
			call_directory(w);
			break;
		default:
			call_create(w, slot);
		}
	}
	for (int slot = 0; slot < FILES; slot++)
		close_handle(w, slot);
	return NULL;
}

int main(int argc, char **argv)
{
	static struct worker workers[THREADS];
	static const char * const generations[GENERATIONS] = {
		"ABI 42", "ABI 43", "pieces",
	};
	uint64_t accepted[GENERATIONS] = { 0 }, refused[GENERATIONS] = { 0 };
	struct statfs before, after;
	struct held held;
	int editor;

	parse_random_arguments(argc, argv, CALLS);
	held = held_by_module();
	set_up(argc, argv);
	if (dev_size / PAGE > MAX_UNITS)
		bail("%s is larger than %llu bytes", dev, MAX_UNITS * PAGE);
	note("%llu calls, seed %llu", (unsigned long long)count,
	     (unsigned long long)seed);
	statfs(mnt, &before);
	/* Names are changed all the time, which needs an editor meanwhile */
	editor = open(mnt, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (ioctl(editor, FAMFSIOC_EDIT) ||
	    mount(NULL, mnt, NULL, MS_REMOUNT | MS_NOATIME, "strict"))
		bail("make the mount strict");

	for (int i = 0; i < THREADS; i++) {
		struct worker *w = &workers[i];

		w->number = i;
		w->state = seed * THREADS + i;
		make_arena(&w->arena);
		if (pthread_create(&w->thread, NULL, work, w))
			bail("thread");
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(workers[i].thread, NULL);
		for (int g = 0; g < GENERATIONS; g++) {
			accepted[g] += workers[i].accepted[g];
			refused[g] += workers[i].refused[g];
		}
	}
	for (int slot = 0; slot < FILES; slot++)
		unlink_file(&workers[0], slot);

	for (int g = 0; g < GENERATIONS; g++)
		ok(accepted[g] && refused[g],
		   "%s: %llu maps accepted, %llu refused", generations[g],
		   (unsigned long long)accepted[g],
		   (unsigned long long)refused[g]);
	is(bad_errno, 0, "no answer that is not documented");
	is(bad_answer, 0, "no wrong answer");
	is(bad_map, 0, "every map is told as it was given");
	is(overlaps, 0, "no range of the device is in two files");
	is(bad_io, 0, "files with a map can be used");
	statfs(mnt, &after);
	is(after.f_bfree, before.f_bfree, "all is free again");
	close(editor);
	works(umount(mnt), "unmount");
	expect_held(&held);
	return tap_exit();
}
