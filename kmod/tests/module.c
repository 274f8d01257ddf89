// SPDX-License-Identifier: GPL-2.0
/*
 * Loading and unloading. The module is found by modprobe, or is the file
 * given as third argument.
 */
#include <spawn.h>
#include <sys/syscall.h>

#include "fixture.h"

extern char **environ;

static const char *module_file;

static int load(void)
{
	char *modprobe[] = { "modprobe", "famfs", NULL };
	int status, fd, ret;
	pid_t pid;

	if (module_file) {
		fd = open(module_file, O_RDONLY | O_CLOEXEC);
		ret = syscall(SYS_finit_module, fd, "", 0);
		close(fd);
		return ret;
	}
	errno = posix_spawnp(&pid, "modprobe", NULL, NULL, modprobe, environ);
	if (errno)
		return -1;
	waitpid(pid, &status, 0);
	return status ? -1 : 0;
}

static int unload(void)
{
	return syscall(SYS_delete_module, "famfs", O_NONBLOCK);
}

static int references(void)
{
	FILE *file = fopen("/sys/module/famfs/refcnt", "r");
	int count = -1;

	if (file) {
		if (fscanf(file, "%d", &count) != 1)
			count = -1;
		fclose(file);
	}
	return count;
}

static bool file_has(const char *name, const char *text)
{
	FILE *file = fopen(name, "r");
	char line[1024];
	bool found = false;

	while (!found && fgets(line, sizeof(line), file))
		found = strstr(line, text);
	fclose(file);
	return found;
}

int main(int argc, char **argv)
{
	int rounds = 0, fd;

	parse_arguments(argc, argv);
	module_file = argv[3];
	if (references() < 0 && load())
		bail("load famfs");

	is(references(), 0, "the module is not in use");
	ok(file_has("/proc/filesystems", "\tfamfs"),
	   "/proc/filesystems has famfs");
	/* How existing user space finds out which module it talks to */
	ok(file_has("/proc/kallsyms", " famfs_create\t[famfs]"),
	   "/proc/kallsyms has famfs_create");

	works(mount_famfs(""), "mount");
	is(references(), 1, "the mount holds the module");
	fails(unload(), EWOULDBLOCK, "unload while mounted");
	fd = make_file("file", 32 * MIB, PMD);
	works(umount2(mnt, MNT_DETACH), "lazy unmount with an open file");
	fails(unload(), EWOULDBLOCK, "unload while the file is open");
	close(fd);
	is(references(), 0, "nothing holds the module after the close");

	for (; rounds < 10; rounds++)
		if (unload() || load() || mount_famfs("") || umount(mnt))
			break;
	is(rounds, 10, "10 rounds of unload, load, mount, unmount");
	is(references(), 0, "the module is not in use");
	return tap_exit();
}
