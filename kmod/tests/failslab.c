// SPDX-License-Identifier: GPL-2.0
/*
 * Every allocation fails, one after the other, and so does every copy from and
 * to user space that the module makes. A call then succeeds all the same, or
 * fails with ENOMEM (EFAULT for a copy) and has changed nothing.
 *
 * Needs a kernel with fault injection, as the debug kernel is.
 */
#include <linux/magic.h>

#include "leak.h"

#define DEBUGFS "/sys/kernel/debug"
#define BASE (32 * MIB)
#define NAME "file"
#define OTHER_NAME "link"
#define SIZE (16 * PMD)
/* No call here allocates as often: something is wrong with the injection */
#define MOST_ALLOCATIONS 2000

static int fail_nth;
static int fd;
static struct statfs free_before;
static struct held held;

static void set(const char *file, const char *value)
{
	char path[256];
	int attribute;

	snprintf(path, sizeof(path), DEBUGFS "/%s", file);
	attribute = open(path, O_WRONLY);
	if (attribute < 0 || write(attribute, value, strlen(value)) < 0)
		bail("write '%s' to %s", value, path);
	close(attribute);
}

/* Other copies would be those of the system calls that this test itself makes */
static void only_copies_of_the_module(void)
{
	unsigned long long start = 0, size, at;
	FILE *file = fopen("/proc/modules", "r");
	char line[512], text[32];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "famfs %llu %*d %*s %*s %llx", &size,
			   &at) == 2)
			start = at;
	if (!start)
		bail("no address of famfs in /proc/modules");
	fclose(file);
	snprintf(text, sizeof(text), "%#llx", start);
	set("fail_usercopy/require-start", text);
	snprintf(text, sizeof(text), "%#llx", start + size);
	set("fail_usercopy/require-end", text);
}

static void set_up_injection(void)
{
	struct statfs sfs;

	if (statfs(DEBUGFS, &sfs) || sfs.f_type != DEBUGFS_MAGIC)
		if (mount("debugfs", DEBUGFS, "debugfs", 0, NULL))
			bail("mount debugfs");
	/* Allocations that may wait are nearly all there are */
	set("failslab/ignore-gfp-wait", "N");
	set("failslab/verbose", "0");
	set("fail_page_alloc/ignore-gfp-wait", "N");
	set("fail_page_alloc/ignore-gfp-highmem", "N");
	set("fail_page_alloc/min-order", "0");
	set("fail_page_alloc/verbose", "0");
	set("fail_usercopy/verbose", "0");
	only_copies_of_the_module();
	fail_nth = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (fail_nth < 0)
		bail("/proc/thread-self/fail-nth");
}

/* The next @nth allocation or copy of this thread fails; 0: none */
static void let_fail(int nth)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", nth);
	if (pwrite(fail_nth, text, strlen(text), 0) < 0)
		bail("set fail-nth");
}

/* Did it come to that since let_fail()? */
static bool has_failed(void)
{
	char text[16] = "";

	if (pread(fail_nth, text, sizeof(text) - 1, 0) <= 0)
		bail("get fail-nth");
	return !atoi(text);
}

static int must(int ret, const char *what)
{
	if (ret < 0)
		bail("%s", what);
	return ret;
}

static void remember_free(void)
{
	must(statfs(mnt, &free_before), "statfs");
}

static bool all_is_free(void)
{
	struct statfs now;

	must(statfs(mnt, &now), "statfs");
	return now.f_bfree == free_before.f_bfree;
}

/* mount(2), and what it leaves behind when it fails */

static void nothing(void)
{
}

static int run_mount(void)
{
	return mount_famfs("");
}

static bool check_mount(bool done)
{
	if (done)
		must(umount(mnt), "umount");
	return !module_references() &&
	       module_allocations() == held.allocations;
}

static void prepare_umount(void)
{
	must(mount_famfs(""), "mount");
	close(make_file(NAME, BASE, SIZE));
}

static int run_umount(void)
{
	return umount(mnt);
}

static bool check_umount(bool done)
{
	if (!done)
		must(umount(mnt), "umount");
	return !module_references() &&
	       module_allocations() == held.allocations;
}

static int run_remount(void)
{
	return mount(NULL, mnt, NULL, MS_REMOUNT | MS_NOATIME, "");
}

static bool check_nothing(bool done)
{
	(void)done;
	return true;
}

/* Files without a map */

static int run_create(void)
{
	fd = open(at(NAME), O_RDWR | O_CREAT | O_EXCL, 0600);
	return fd;
}

static bool check_create(bool done)
{
	struct stat st;

	/* A failure after the file was made may leave it, empty */
	if (done)
		close(fd);
	if (!stat(at(NAME), &st))
		must(unlink(at(NAME)), "unlink");
	return true;
}

static int run_mkdir(void)
{
	return mkdir(at(NAME), 0700);
}

static bool check_mkdir(bool done)
{
	return !rmdir(at(NAME)) == done;
}

static int run_symlink(void)
{
	return symlink("target of a symbolic link", at(NAME));
}

static bool check_symlink(bool done)
{
	return !unlink(at(NAME)) == done;
}

static void prepare_link(void)
{
	close(make_stub(NAME));
}

static int run_link(void)
{
	return link(at(NAME), at(OTHER_NAME));
}

static bool check_link(bool done)
{
	must(unlink(at(NAME)), "unlink");
	return !unlink(at(OTHER_NAME)) == done;
}

static int run_rename(void)
{
	return rename(at(NAME), at(OTHER_NAME));
}

static bool check_rename(bool done)
{
	return !unlink(at(done ? OTHER_NAME : NAME)) &&
	       access(at(done ? NAME : OTHER_NAME), F_OK);
}

static void prepare_rename_over(void)
{
	close(make_stub(NAME));
	must(symlink("target", at(OTHER_NAME)), "symlink");
}

static bool check_rename_over(bool done)
{
	struct stat st;

	must(lstat(at(OTHER_NAME), &st), "lstat");
	unlink(at(OTHER_NAME));
	return !unlink(at(NAME)) == !done && S_ISREG(st.st_mode) == done;
}

static const struct timespec some_times[2] = { { 1, 2 }, { 3, 4 } };

static int run_times(void)
{
	return utimensat(AT_FDCWD, at(NAME), some_times, 0);
}

static bool check_times(bool done)
{
	struct stat st;

	must(stat(at(NAME), &st), "stat");
	must(unlink(at(NAME)), "unlink");
	return (st.st_mtim.tv_sec == 3 && st.st_mtim.tv_nsec == 4) == done;
}

/* A second editor, which this process already is by the first */
static void prepare_edit(void)
{
	fd = must(open(mnt, O_RDONLY | O_DIRECTORY), "open the root");
}

static int run_edit(void)
{
	return ioctl(fd, FAMFSIOC_EDIT);
}

static bool check_edit(bool done)
{
	(void)done;
	return !close(fd);
}

/* MAP_CREATE in its forms: all of the map is attached, or nothing */

static void prepare_map(void)
{
	remember_free();
	fd = make_stub(NAME);
}

static int run_map_v42(void)
{
	struct famfs_ioc_map map = {
		.file_size = 2 * PMD,
		.ext_list_count = 2,
		.ext_list = { { BASE, PMD }, { BASE + 4 * PMD, PMD } },
	};

	map.extent_type = FAMFS_EXTENT_SIMPLE;
	return ioctl(fd, FAMFSIOC_MAP_CREATE, &map);
}

static const struct famfs_ioc_simple_extent *ranges(void)
{
	static struct famfs_ioc_simple_extent list[16];

	for (size_t i = 0; i < ARRAY_SIZE(list); i++) {
		list[i].offset = BASE + 2 * i * PMD;
		list[i].len = PMD;
	}
	return list;
}

static int run_map_extents(void)
{
	return map_simple(fd, SIZE, 16, ranges());
}

static int run_map_pieces(void)
{
	struct famfs_ioc_piece pieces[16];

	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++)
		pieces[i] = (struct famfs_ioc_piece) {
			.file_offset = i * PMD,
			.offset = ranges()[i].offset,
			.len = PMD,
		};
	return map_pieces(fd, SIZE, ARRAY_SIZE(pieces), pieces);
}

/* A list that takes more than a page, and so does the map */
static int run_map_many(void)
{
	static struct famfs_ioc_piece pieces[2000];

	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++)
		pieces[i] = (struct famfs_ioc_piece) {
			.file_offset = 2 * i * PAGE,
			.offset = BASE + i * PAGE,
			.len = PAGE,
		};
	return map_pieces(fd, 2 * ARRAY_SIZE(pieces) * PAGE,
			  ARRAY_SIZE(pieces), pieces);
}

static int run_map_strips(void)
{
	return map_interleaved(fd, SIZE, PMD, 16, ranges());
}

static bool check_map(bool done)
{
	struct famfs_ioc_pieces get = { 0 };
	bool has_map = !ioctl(fd, FAMFSIOC_GET_PIECES, &get) ||
		       errno == EOPNOTSUPP;
	bool good = has_map == done && (done || all_is_free());

	if (!done)
		good &= !map_simple(fd, SIZE, 16, ranges());
	close(fd);
	must(unlink(at(NAME)), "unlink");
	return good && all_is_free();
}

/* What is done with a file that has a map */

static void prepare_file(void)
{
	remember_free();
	fd = make_stub(NAME);
	must(map_simple(fd, SIZE, 16, ranges()), "MAP_CREATE");
}

static bool check_file(bool done)
{
	(void)done;
	close(fd);
	must(unlink(at(NAME)), "unlink");
	return all_is_free();
}

static int run_map_get(void)
{
	struct famfs_ioc_get_fmap get;

	return ioctl(fd, FAMFSIOC_MAP_GET_V2, &get);
}

static int run_get_pieces(void)
{
	struct famfs_ioc_piece list[16];
	struct famfs_ioc_pieces pieces = {
		.count = ARRAY_SIZE(list), .pieces = (uintptr_t)list,
	};

	return ioctl(fd, FAMFSIOC_GET_PIECES, &pieces);
}

static int touch_all(int flags)
{
	char *mem = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (mem == MAP_FAILED)
		return -1;
	for (uint64_t pos = 0; pos < SIZE; pos += PMD) {
		(void)*(volatile char *)(mem + pos);
		mem[pos + 4096] = 1;
	}
	return munmap(mem, SIZE);
}

static int run_shared(void)
{
	return touch_all(MAP_SHARED);
}

static int run_private(void)
{
	return touch_all(MAP_PRIVATE);
}

/* Pages with holes between them, which are read, mapped and asked for */
static void prepare_sparse(void)
{
	remember_free();
	fd = make_stub(NAME);
	must(run_map_many(), "MAP_PIECES");
}

static int run_holes(void)
{
	char *mem = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			 0);
	int wrong;

	if (mem == MAP_FAILED)
		return -1;
	wrong = mem[PAGE] | mem[3 * PAGE];
	mem[0] = mem[2 * PAGE];
	if (wrong)
		bail("a hole has data");
	return munmap(mem, 4 * PAGE);
}

static char data[64 * KIB];

static int run_read(void)
{
	return pread(fd, data, sizeof(data), PMD - 4096);
}

static int run_write(void)
{
	return pwrite(fd, data, sizeof(data), PMD - 4096);
}

static int run_fsync(void)
{
	return fsync(fd);
}

/* For splice; a failure of pipe(2) itself says nothing about the module */
static int pipes[2];

static void prepare_splice(void)
{
	prepare_file();
	must(pipe(pipes), "pipe");
}

static int run_splice(void)
{
	loff_t from = PMD - 4096;

	return splice(fd, &from, pipes[1], NULL, sizeof(data),
		      SPLICE_F_NONBLOCK);
}

static bool check_splice(bool done)
{
	close(pipes[0]);
	close(pipes[1]);
	return check_file(done);
}

static int run_unlink(void)
{
	return unlink(at(NAME));
}

static bool check_unlink(bool done)
{
	close(fd);
	if (!done)
		must(unlink(at(NAME)), "unlink");
	return all_is_free();
}

static const struct call {
	const char *name;
	void (*prepare)(void);
	int (*run)(void);
	/* The call was done, or refused: is all as it has to be? Undo it. */
	bool (*check)(bool done);
} unmounted[] = {
	{ "mount", nothing, run_mount, check_mount },
	{ "umount", prepare_umount, run_umount, check_umount },
}, mounted[] = {
	{ "remount", nothing, run_remount, check_nothing },
	{ "create", nothing, run_create, check_create },
	{ "mkdir", nothing, run_mkdir, check_mkdir },
	{ "symlink", nothing, run_symlink, check_symlink },
	{ "link", prepare_link, run_link, check_link },
	{ "rename", prepare_link, run_rename, check_rename },
	{ "rename over a link", prepare_rename_over, run_rename,
	  check_rename_over },
	{ "utimensat", prepare_link, run_times, check_times },
	{ "EDIT", prepare_edit, run_edit, check_edit },
	{ "MAP_CREATE", prepare_map, run_map_v42, check_map },
	{ "MAP_CREATE_V2, 16 extents", prepare_map, run_map_extents,
	  check_map },
	{ "MAP_CREATE_V2, 16 strips", prepare_map, run_map_strips, check_map },
	{ "MAP_PIECES, 16 pieces", prepare_map, run_map_pieces, check_map },
	{ "MAP_PIECES, 2,000 pieces", prepare_map, run_map_many, check_map },
	{ "MAP_GET_V2", prepare_file, run_map_get, check_file },
	{ "GET_PIECES", prepare_file, run_get_pieces, check_file },
	{ "shared mmap", prepare_file, run_shared, check_file },
	{ "private mmap", prepare_file, run_private, check_file },
	{ "shared mmap of holes", prepare_sparse, run_holes, check_file },
	{ "read", prepare_file, run_read, check_file },
	{ "read of holes", prepare_sparse, run_read, check_file },
	{ "write", prepare_file, run_write, check_file },
	{ "fsync", prepare_file, run_fsync, check_file },
	{ "splice", prepare_splice, run_splice, check_splice },
	{ "unlink", prepare_file, run_unlink, check_unlink },
};

/* One test: the call with its first allocation failing, its second, and so on */
static void fail_each(const struct call *call)
{
	int nth = 1, refused = 0;
	bool good = true, failed;

	for (;; nth++) {
		int ret, error;

		call->prepare();
		let_fail(nth);
		ret = call->run();
		error = errno;
		failed = has_failed();
		let_fail(0);
		refused += ret < 0;
		if (ret < 0 && (!failed ||
				(error != ENOMEM && error != EFAULT))) {
			note("failure %d: %s", nth, strerrorname_np(error));
			good = false;
		}
		if (!call->check(ret >= 0)) {
			note("failure %d: not all is as before", nth);
			good = false;
		}
		if (!failed || nth == MOST_ALLOCATIONS)
			break;
	}
	ok(good && !failed, "%s: %d failures, %d refusals", call->name, nth - 1,
	   refused);
}

int main(int argc, char **argv)
{
	int editor;

	parse_arguments(argc, argv);
	set_up_injection();
	/* What is allocated once and kept is there from here on */
	must(mount_famfs(""), "mount");
	must(umount(mnt), "umount");
	held = held_by_module();

	for (size_t i = 0; i < ARRAY_SIZE(unmounted); i++)
		fail_each(&unmounted[i]);
	must(mount_famfs(""), "mount");
	editor = become_editor();
	for (size_t i = 0; i < ARRAY_SIZE(mounted); i++)
		fail_each(&mounted[i]);
	close(editor);
	works(umount(mnt), "unmount");
	expect_held(&held);
	return tap_exit();
}
