/* SPDX-License-Identifier: GPL-2.0 */
/* Counts the DAX faults of this process by the kernel's own tracepoints */
#ifndef _FAMFS_FAULTS_H
#define _FAMFS_FAULTS_H

#include "fixture.h"

#define TRACING "/sys/kernel/tracing"
#define INSTANCE TRACING "/instances/famfs_test"

struct faults {
	/* Mapped by 2 MiB, mapped by 4 KiB, copied to private memory */
	int pmd, pte, cow;
	/* No faults, but what comes of them: entries that were written back */
	int written_back;
};

static inline void tracing_write(const char *file, const char *text)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), INSTANCE "/%s", file);
	fd = open(path, O_WRONLY | O_TRUNC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		bail("write '%s' to %s", text, path);
	close(fd);
}

static inline void faults_set_up(void)
{
	char pid[16];

	mount("tracefs", TRACING, "tracefs", 0, NULL);
	if (mkdir(INSTANCE, 0700) && errno != EEXIST)
		bail("mkdir %s", INSTANCE);
	snprintf(pid, sizeof(pid), "%d", getpid());
	tracing_write("set_event_pid", pid);
	tracing_write("events/fs_dax/dax_pmd_fault_done/enable", "1");
	tracing_write("events/fs_dax/dax_pte_fault_done/enable", "1");
	tracing_write("events/fs_dax/dax_writeback_one/enable", "1");
}

static inline void faults_tear_down(void)
{
	tracing_write("events/fs_dax/enable", "0");
	rmdir(INSTANCE);
}

/* The faults since the last call. */
static inline struct faults count_faults(void)
{
	struct faults count = { 0 };
	char line[1024];
	FILE *trace = fopen(INSTANCE "/trace", "r");

	if (!trace)
		bail("open %s", INSTANCE "/trace");
	while (fgets(line, sizeof(line), trace)) {
		bool mapped = strstr(line, " NOPAGE") ||
			      strstr(line, "|NOPAGE");

		if (line[0] == '#')
			continue;
		count.pmd += strstr(line, "dax_pmd_fault_done") && mapped;
		count.pte += strstr(line, "dax_pte_fault_done") && mapped;
		count.cow += !!strstr(line, "DONE_COW");
		count.written_back += !!strstr(line, "dax_writeback_one:");
	}
	fclose(trace);
	tracing_write("trace", "");
	return count;
}

/* One test: exactly these faults since the last count. */
static inline void expect_faults(int pmd, int pte, const char *what)
{
	struct faults got = count_faults();

	if (!ok(got.pmd == pmd && got.pte == pte,
		"%s: %d faults of 2 MiB, %d of 4 KiB", what, pmd, pte))
		note("took %d and %d", got.pmd, got.pte);
}

#endif /* _FAMFS_FAULTS_H */
