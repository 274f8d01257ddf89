// SPDX-License-Identifier: GPL-2.0
/*
 * Random reads and writes in every way there is, checked against a copy of
 * the file in ordinary memory:
 *
 * fsx DEVICE MOUNTPOINT [OPERATIONS [SEED [write|verify]]]
 *
 * With "write" here and "verify" in another VM that has the same memory, that
 * one looks at the files through a mount of its own at every stop.
 */
#include "random.h"
#include "two_vms.h"

#define OPERATIONS 20000
#define BASE (32 * MIB)
#define SIZE (9 * PMD - 3 * PAGE + 777)
#define LONGEST (5 * MIB)
#define PIPE (256 * KIB)
#define REMOUNTS 4

/* Out of order on the device, and not all of one length */
static const struct famfs_ioc_simple_extent extents[] = {
	{ 0, BASE + 20 * PMD, 2 * PMD },
	{ 0, BASE + 4 * PMD, PMD },
	{ 0, BASE + 5 * PMD, PMD },
	{ 0, BASE, 3 * PMD },
	{ 0, BASE + 10 * PMD, 2 * PMD },
};

static const struct famfs_ioc_simple_extent strips[] = {
	{ 0, BASE + 50 * PMD, 3 * PMD },
	{ 0, BASE + 30 * PMD, 3 * PMD },
	{ 0, BASE + 40 * PMD, 3 * PMD },
};

/* As no allocator would do it: odd numbers of pages, everywhere */
static const struct famfs_ioc_piece pages[] = {
	{ 0, BASE + 61 * PMD + 3 * PAGE, PAGE },
	{ PAGE, BASE + 60 * PMD, PMD - PAGE },
	{ PMD, BASE + 62 * PMD, PMD },
	{ 2 * PMD, BASE + 64 * PMD + PAGE, 2 * PMD },
	{ 4 * PMD, BASE + 67 * PMD, 3 * PMD + 7 * PAGE },
	{ 7 * PMD + 7 * PAGE, BASE + 71 * PMD + 7 * PAGE, 2 * PMD - 9 * PAGE },
};

static struct file {
	const char *name;
	int fd, direct;
	/* All of the file, and what it has to hold */
	unsigned char *mem, *shadow;
} files[] = {
	{ .name = "extents" },
	{ .name = "interleaved" },
	{ .name = "pages" },
};

/* An operation: what it does to bytes @pos to @pos + @len of a file */
struct range {
	struct file *file;
	uint64_t pos, len;
};

static unsigned char buffer[LONGEST];
static uint64_t state, operation;
static const char *current;
static int pipes[2];

static bool complain(const struct file *file, const char *what)
{
	note("operation %llu, %s of %s: %s; seed %llu",
	     (unsigned long long)operation, current, file->name, what,
	     (unsigned long long)seed);
	return false;
}

static bool returned(const struct file *file, ssize_t got, size_t want)
{
	char text[128];

	if (got >= 0 && (size_t)got == want)
		return true;
	snprintf(text, sizeof(text), "returned %zd (errno %s), expected %zu",
		 got, got < 0 ? strerrorname_np(errno) : "none", want);
	return complain(file, text);
}

/* The bytes at @found are those that the file should have there */
static bool same(const struct range *r, const unsigned char *found)
{
	const unsigned char *expected = r->file->shadow + r->pos;
	uint64_t first = 0, wrong = 0;
	char text[160];

	if (!memcmp(found, expected, r->len))
		return true;
	for (uint64_t i = r->len; i--; ) {
		if (found[i] != expected[i]) {
			first = i;
			wrong++;
		}
	}
	snprintf(text, sizeof(text),
		 "offset %#llx: found %#04x, expected %#04x, %llu of %llu bytes from %#llx are wrong",
		 (unsigned long long)(r->pos + first), found[first],
		 expected[first], (unsigned long long)wrong,
		 (unsigned long long)r->len, (unsigned long long)r->pos);
	return complain(r->file, text);
}

/* New bytes for the range, in the buffer; the caller gets them to the file */
static const unsigned char *fresh(const struct range *r)
{
	for (uint64_t i = 0; i < r->len; i += sizeof(uint64_t)) {
		uint64_t word = random_u64(&state);
		size_t rest = r->len - i;

		memcpy(buffer + i, &word,
		       rest < sizeof(word) ? rest : sizeof(word));
	}
	memcpy(r->file->shadow + r->pos, buffer, r->len);
	return buffer;
}

static int any_fd(const struct file *file)
{
	return one_in(&state, 4) ? file->direct : file->fd;
}

static bool op_pread(struct range *r)
{
	/* Sometimes beyond the end, to be cut short there */
	size_t ask = r->len;

	if (r->pos + r->len == SIZE && ask < LONGEST)
		ask += below(&state, LONGEST - ask);
	return returned(r->file, pread(any_fd(r->file), buffer, ask, r->pos),
			r->len) && same(r, buffer);
}

static bool op_pwrite(struct range *r)
{
	const unsigned char *data = fresh(r);
	size_t give = r->len;

	if (r->pos + r->len == SIZE && give < LONGEST)
		give += below(&state, LONGEST - give);
	return returned(r->file, pwrite(any_fd(r->file), data, give, r->pos),
			r->len);
}

static bool op_read(struct range *r)
{
	return returned(r->file, lseek(r->file->fd, r->pos, SEEK_SET),
			r->pos) &&
	       returned(r->file, read(r->file->fd, buffer, r->len), r->len) &&
	       same(r, buffer);
}

static bool op_write(struct range *r)
{
	return returned(r->file, lseek(r->file->fd, r->pos, SEEK_SET),
			r->pos) &&
	       returned(r->file, write(r->file->fd, fresh(r), r->len), r->len);
}

static bool op_load(struct range *r)
{
	return same(r, r->file->mem + r->pos);
}

static bool op_store(struct range *r)
{
	memcpy(r->file->mem + r->pos, fresh(r), r->len);
	if (one_in(&state, 8))
		return returned(r->file, msync(r->file->mem, SIZE, MS_SYNC), 0);
	return true;
}

/* A mapping of its own, of just the pages: 4 KiB faults where it has to be */
static bool op_mmap(struct range *r, int flags, bool write)
{
	uint64_t from = r->pos / PAGE * PAGE, ahead = r->pos - from;
	unsigned char *mem = mmap(NULL, ahead + r->len, PROT_READ | PROT_WRITE,
				  flags, r->file->fd, from);
	bool good;

	if (mem == MAP_FAILED)
		return returned(r->file, -1, 0);
	if (write)
		memcpy(mem + ahead, fresh(r), r->len);
	good = same(r, mem + ahead);
	if (!write && (flags & MAP_PRIVATE))
		memset(mem + ahead, 'p', r->len);
	if (write && one_in(&state, 4))
		good &= returned(r->file,
				 msync(mem, ahead + r->len, MS_SYNC), 0);
	munmap(mem, ahead + r->len);
	return good;
}

static bool op_mmap_read(struct range *r)
{
	return op_mmap(r, MAP_SHARED, false);
}

static bool op_mmap_write(struct range *r)
{
	return op_mmap(r, MAP_SHARED, true);
}

/* What is stored there must never be seen in the file */
static bool op_mmap_private(struct range *r)
{
	return op_mmap(r, MAP_PRIVATE, false);
}

static bool op_splice_read(struct range *r)
{
	loff_t from = r->pos;
	uint64_t done = 0;

	while (done < r->len) {
		ssize_t got = splice(r->file->fd, &from, pipes[1], NULL,
				     r->len - done, SPLICE_F_NONBLOCK);

		if (got <= 0)
			return returned(r->file, got, r->len - done);
		if (!returned(r->file, read(pipes[0], buffer + done, got), got))
			return false;
		done += got;
	}
	return same(r, buffer);
}

static bool op_splice_write(struct range *r)
{
	const unsigned char *data = fresh(r);
	loff_t to = r->pos;
	uint64_t done = 0;

	while (done < r->len) {
		size_t part = r->len - done < PIPE / 2 ? r->len - done :
							 PIPE / 2;

		if (!returned(r->file, write(pipes[1], data + done, part),
			      part))
			return false;
		for (size_t in_pipe = part; in_pipe; ) {
			ssize_t got = splice(pipes[0], NULL, r->file->fd, &to,
					     in_pipe, 0);

			if (got <= 0)
				return returned(r->file, got, in_pipe);
			in_pipe -= got;
		}
		done += part;
	}
	return true;
}

static struct file *other_file(const struct file *file)
{
	return &files[(file - files + 1) % ARRAY_SIZE(files)];
}

/* From a mapping of one file to another: both sides are DAX pages */
static bool op_write_from_mapping(struct range *r)
{
	struct file *other = other_file(r->file);

	memcpy(r->file->shadow + r->pos, other->shadow + r->pos, r->len);
	return returned(r->file, pwrite(any_fd(r->file), other->mem + r->pos,
					r->len, r->pos), r->len);
}

static bool op_read_to_mapping(struct range *r)
{
	struct file *other = other_file(r->file);

	memcpy(other->shadow + r->pos, r->file->shadow + r->pos, r->len);
	return returned(r->file, pread(any_fd(r->file), other->mem + r->pos,
				       r->len, r->pos), r->len);
}

static bool op_fsync(struct range *r)
{
	return returned(r->file, fsync(r->file->fd), 0);
}

static bool op_fdatasync(struct range *r)
{
	return returned(r->file, fdatasync(r->file->direct), 0);
}

/* The next access faults again */
static bool op_dontneed(struct range *r)
{
	uint64_t from = r->pos / PAGE * PAGE;

	return returned(r->file, madvise(r->file->mem + from,
					 r->pos - from + r->len,
					 MADV_DONTNEED), 0);
}

static const struct {
	const char *name;
	bool (*run)(struct range *r);
} operations[] = {
	{ "pread", op_pread },
	{ "pwrite", op_pwrite },
	{ "read", op_read },
	{ "write", op_write },
	{ "load", op_load },
	{ "store", op_store },
	{ "mmap to read", op_mmap_read },
	{ "mmap to write", op_mmap_write },
	{ "private mmap", op_mmap_private },
	{ "splice to a pipe", op_splice_read },
	{ "splice from a pipe", op_splice_write },
	{ "write from the other's mapping", op_write_from_mapping },
	{ "read to the other's mapping", op_read_to_mapping },
	{ "fsync", op_fsync },
	{ "fdatasync", op_fdatasync },
	{ "MADV_DONTNEED", op_dontneed },
};

/*
 * Short ranges are as likely as long ones; every other range begins close to
 * a multiple of 2 MiB, where extents and chunks end; some end with the file.
 */
static struct range any_range(void)
{
	struct range r = { .file = &files[below(&state, ARRAY_SIZE(files))] };
	uint64_t longest = one_in(&state, 256) ? LONGEST :
						 2ULL << below(&state, 18);

	r.len = 1 + below(&state, longest);
	r.pos = below(&state, SIZE);
	if (one_in(&state, 2)) {
		uint64_t seam = r.pos / PMD * PMD;
		uint64_t back = below(&state, r.len + PAGE);

		r.pos = seam > back ? seam - back : 0;
	}
	if (r.pos + r.len > SIZE)
		r.len = SIZE - r.pos;
	return r;
}

static int attach(const struct file *file)
{
	switch (file - files) {
	case 0:
		return map_simple(file->fd, SIZE, ARRAY_SIZE(extents), extents);
	case 1:
		return map_interleaved(file->fd, SIZE, PMD, ARRAY_SIZE(strips),
				       strips);
	default:
		return map_pieces(file->fd, SIZE, ARRAY_SIZE(pages), pages);
	}
}

static void open_files(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		struct file *file = &files[i];

		file->fd = make_stub(file->name);
		if (attach(file))
			bail("map %s", file->name);
		file->direct = open(at(file->name), O_RDWR | O_DIRECT);
		if (file->direct < 0)
			bail("open %s with O_DIRECT", file->name);
		file->mem = map_file(file->fd, SIZE, PROT_READ | PROT_WRITE,
				     MAP_SHARED);
	}
}

static void close_files(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		munmap(files[i].mem, SIZE);
		close(files[i].fd);
		close(files[i].direct);
	}
}

/* Names and maps are gone after it, and the data has to be there */
static bool remount(void)
{
	bool good = true;

	close_files();
	if (umount(mnt) || mount_famfs(""))
		bail("remount %s", mnt);
	open_files();
	current = "load after a remount";
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		struct range all = { &files[i], 0, SIZE };

		good &= same(&all, files[i].mem);
	}
	return good;
}

static bool run_operations(uint64_t last)
{
	while (operation < last) {
		size_t op = below(&state, ARRAY_SIZE(operations));
		struct range range = any_range();

		operation++;
		current = operations[op].name;
		if (!operations[op].run(&range))
			return false;
	}
	return true;
}

static uint64_t piece_len(uint64_t pos)
{
	return SIZE - pos < PMD ? SIZE - pos : PMD;
}

/* What the files have to hold, for the verifier */
static void tell_pieces(void)
{
	int piece = 0;

	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		for (uint64_t pos = 0; pos < SIZE; pos += PMD)
			meeting->pieces[piece++] =
				digest(files[i].shadow + pos, piece_len(pos));
}

/* Each piece is as the writer told, through the mapping and by read(2) */
static bool verify_pieces(void)
{
	bool good = true;
	int piece = 0;

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		for (uint64_t pos = 0; pos < SIZE; pos += PMD, piece++) {
			uint64_t len = piece_len(pos);
			uint64_t want = meeting->pieces[piece];
			struct file *file = &files[i];

			current = "load";
			if (digest(file->mem + pos, len) != want)
				good = complain(file, "2 MiB differ");
			current = "pread";
			if (pread(file->fd, buffer, len, pos) != (ssize_t)len ||
			    digest(buffer, len) != want)
				good = complain(file, "2 MiB differ");
		}
	}
	return good;
}

static void write_for_verifier(void)
{
	bool good = true;

	join_meeting();
	for (int stop = 1; good && stop <= STOPS; stop++) {
		good = ok(run_operations(count * stop / STOPS),
			  "operations up to %llu",
			  (unsigned long long)operation);
		tell_pieces();
		if (good)
			good = ok(announce(stop), "the other VM has seen them");
	}
	memset(meeting, 0, sizeof(*meeting));
	leave_meeting();
}

static void verify_writer(void)
{
	join_meeting();
	for (int stop = 1; stop <= STOPS; stop++) {
		operation = count * stop / STOPS;
		if (!ok(wait_until(&meeting->written, stop) && verify_pieces(),
			"all is as the other VM has written it, stop %d", stop))
			break;
		__atomic_store_n(&meeting->verified, stop, __ATOMIC_RELEASE);
	}
	leave_meeting();
}

static void run_alone(void)
{
	bool good = true;

	for (int part = 1; good && part <= REMOUNTS; part++) {
		good = run_operations(count * part / REMOUNTS);
		ok(good, "operations up to %llu",
		   (unsigned long long)operation);
		if (good)
			good = ok(remount(), "and all is there after a remount");
	}
}

int main(int argc, char **argv)
{
	const char *role = argc > 5 ? argv[5] : "";

	parse_random_arguments(argc, argv, OPERATIONS);
	set_up(argc, argv);
	note("%llu operations, seed %llu", (unsigned long long)count,
	     (unsigned long long)seed);
	state = seed;
	if (pipe(pipes) || fcntl(pipes[1], F_SETPIPE_SZ, PIPE) < 0)
		bail("pipe");
	open_files();
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		files[i].shadow = malloc(SIZE);
		if (!files[i].shadow)
			bail("%llu bytes", SIZE);
		memcpy(files[i].shadow, files[i].mem, SIZE);
	}

	if (!strcmp(role, "write"))
		write_for_verifier();
	else if (!strcmp(role, "verify"))
		verify_writer();
	else
		run_alone();
	close_files();
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		unlink(at(files[i].name));
		free(files[i].shadow);
	}
	return tear_down();
}
