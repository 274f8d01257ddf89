/* SPDX-License-Identifier: GPL-2.0 */
/* Taking the driver away from the device, and giving it back. */
#ifndef _FAMFS_DRIVER_H
#define _FAMFS_DRIVER_H

#include <libgen.h>
#include <limits.h>

#include "fixture.h"

static char driver[PATH_MAX], device[NAME_MAX + 1];

static inline void find_driver(void)
{
	char link[PATH_MAX], name[PATH_MAX];

	snprintf(name, sizeof(name), "%s", dev);
	if (dev_is_char) {
		strcpy(driver, "/sys/bus/dax/drivers/fsdev_dax");
		snprintf(device, sizeof(device), "%.64s", basename(name));
		return;
	}
	strcpy(driver, "/sys/bus/nd/drivers/nd_pmem");
	snprintf(link, sizeof(link), "/sys/class/block/%.64s/device",
		 basename(name));
	if (!realpath(link, name))
		bail("%s", link);
	snprintf(device, sizeof(device), "%.64s", basename(name));
}

static inline int driver_write(const char *file)
{
	char path[PATH_MAX + 16];
	int fd, ret;

	snprintf(path, sizeof(path), "%s/%s", driver, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ret = write(fd, device, strlen(device));
	close(fd);
	return ret;
}

static inline int unbind(void)
{
	return driver_write("unbind");
}

/* The node may come a little later than the device. */
static inline int bind_again(void)
{
	struct stat st;

	if (driver_write("bind") < 0)
		return -1;
	for (int i = 0; i < 100 && stat(dev, &st); i++)
		usleep(50000);
	return stat(dev, &st);
}

#endif /* _FAMFS_DRIVER_H */
