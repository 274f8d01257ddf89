/* SPDX-License-Identifier: GPL-2.0 */
/* What the kernel tells: its log, and the options of a mount */
#ifndef _FAMFS_LOG_H
#define _FAMFS_LOG_H

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The module's new messages with a text, of any level, from /dev/kmsg */
static inline int new_messages(int kmsg, const char *text)
{
	char message[8192];
	ssize_t got;
	int count = 0;

	/* Others write into the log as well, systemd of /mnt/famfs too */
	while ((got = read(kmsg, message, sizeof(message) - 1)) > 0 ||
	       errno == EPIPE) {
		message[got > 0 ? got : 0] = '\0';
		count += strstr(message, ";famfs: ") && strstr(message, text);
	}
	return count;
}

/* Whether /proc/mounts has a text in the line of a mount */
static inline bool mounts_line_has(const char *source, const char *point,
				   const char *text)
{
	char line[4096], want[256];
	bool found = false;
	FILE *mounts = fopen("/proc/mounts", "r");

	snprintf(want, sizeof(want), "%s %s famfs ", source, point);
	while (fgets(line, sizeof(line), mounts))
		if (!strncmp(line, want, strlen(want)))
			found = strstr(line, text);
	fclose(mounts);
	return found;
}

#endif /* _FAMFS_LOG_H */
