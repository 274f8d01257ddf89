/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Two VMs with a mount each of the same memory: one writes a few files, the
 * other one verifies them. They meet at a page of another file, where the
 * writer tells what the files hold, 2 MiB by 2 MiB, and waits for the other.
 *
 * The page is all zeros before, as in a new pool, and again afterwards.
 */
#ifndef _FAMFS_TWO_VMS_H
#define _FAMFS_TWO_VMS_H

#include <time.h>

#include "fixture.h"

#define STOPS 16
#define MAX_PIECES 32
#define MEETING (224 * MIB)
/* For the other VM to boot, or to come to the next stop */
#define PATIENCE 900

struct meeting {
	/* The writer has come to this stop, the verifier has checked it */
	uint32_t written, verified;
	uint64_t pieces[MAX_PIECES];
};

static struct meeting *meeting;

static inline void join_meeting(void)
{
	int fd = make_file("meeting", MEETING, PMD);

	meeting = map_file(fd, PMD, PROT_READ | PROT_WRITE, MAP_SHARED);
	close(fd);
}

static inline void leave_meeting(void)
{
	munmap(meeting, PMD);
	unlink(at("meeting"));
}

static inline bool wait_until(const uint32_t *stop, uint32_t value)
{
	time_t deadline = time(NULL) + PATIENCE;

	while (__atomic_load_n(stop, __ATOMIC_ACQUIRE) != value) {
		if (time(NULL) > deadline)
			return false;
		usleep(10000);
	}
	return true;
}

/* FNV-1a over words: any byte that differs gives another number */
static inline uint64_t digest(const unsigned char *bytes, uint64_t len)
{
	uint64_t sum = 0xcbf29ce484222325ULL;
	uint64_t word;

	for (; len; len -= len < 8 ? len : 8, bytes += 8) {
		word = 0;
		memcpy(&word, bytes, len < 8 ? len : 8);
		sum = (sum ^ word) * 0x100000001b3ULL;
	}
	return sum;
}

/* The writer comes to @stop: all pieces are told, and the other agrees. */
static inline bool announce(uint32_t stop)
{
	__atomic_store_n(&meeting->written, stop, __ATOMIC_RELEASE);
	return wait_until(&meeting->verified, stop);
}

#endif /* _FAMFS_TWO_VMS_H */
