// SPDX-License-Identifier: GPL-2.0
/* The fault counters in /sys/fs/famfs: off, on, exact, unloaded. */
#include <sys/syscall.h>

#include "counters.h"
#include "faults.h"

#define BASE (64 * MIB)
#define SIZE (64 * MIB)

static void test_off(int fd)
{
	is(counter("fault_count_enable"), 0, "the counters are off");
	read_all(fd, 0, SIZE);
	expect(0, 0, "nothing is counted");
	fails(enable("2\n"), EINVAL, "switch them to 2");
	fails(enable("\n"), EINVAL, "switch them to nothing");
	fails(open(COUNTERS "pmd_fault_ct", O_WRONLY), EACCES,
	      "open a counter for writing");
}

static void test_on(int fd)
{
	int tail = make_file("tail", BASE + SIZE, PMD + 5000);
	char *mem;

	works(enable("1\n"), "switch them on");
	is(counter("fault_count_enable"), 1, "they are on");
	count_faults();
	read_all(fd, 0, SIZE);
	expect(32, 0, "64 MiB");
	expect_faults(32, 0, "the tracepoints agree");
	read_all(tail, 0, PMD + 5000);
	expect(33, 2, "a file with a tail");

	/* What a private mapping copies is counted as what was copied */
	mem = map_file(tail, PMD, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	mem[0] = 1;
	expect(33, 3, "a private copy");
	munmap(mem, PMD);

	/* Beyond the end nothing is mapped, and nothing counted */
	mem = map_file(tail, 2 * PMD, PROT_READ, MAP_SHARED);
	is(touch(mem + PMD + 8192), BUS_ADRERR, "beyond the end of the file");
	expect(33, 3, "that is no fault");
	munmap(mem, 2 * PMD);

	works(enable("0\n"), "switch them off");
	read_all(fd, 0, SIZE);
	expect(33, 3, "the counts stay");
	works(enable("1\n"), "switch them on again");
	expect(0, 0, "they begin anew");
	read_all(fd, 0, SIZE);
	expect(32, 0, "64 MiB");
	enable("0\n");
	close(tail);
	unlink(at("tail"));
}

/* The module goes while they are on, and comes back with them off */
static void test_unload(void)
{
	is(counter("fault_count_enable"), 1, "the counters are on");
	works(umount(mnt), "unmount");
	works(syscall(SYS_delete_module, "famfs", O_NONBLOCK), "unload");
	fails(access(COUNTERS, F_OK), ENOENT, "the directory is gone");
	if (system("modprobe famfs"))
		bail("load famfs");
	is(counter("fault_count_enable"), 0, "load: the counters are off");
	expect(0, 0, "and zero");
}

int main(int argc, char **argv)
{
	int fd;

	set_up(argc, argv);
	faults_set_up();
	enable("1\n");
	enable("0\n");
	fd = make_file("file", BASE, SIZE);
	test_off(fd);
	test_on(fd);
	enable("1\n");
	close(fd);
	faults_tear_down();
	test_unload();
	return tap_exit();
}
