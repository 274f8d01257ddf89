// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * vsock_peer PORT TIMES: connects that often to a vsock port of its own
 * machine, greets like a host, and prints how often the connection was closed
 * without an answer, or what happened instead.
 */
#include <sys/socket.h>
#include <linux/vm_sockets.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char greeting[] =
	"\n{\"request\":\"hello\",\"version\":7,\"session\":\"peer\"}\n";

int main(int argc, char **argv)
{
	struct sockaddr_vm address = {
		.svm_family = AF_VSOCK,
		.svm_cid = VMADDR_CID_LOCAL,
	};
	int closed = 0;

	if (argc != 3)
		return 2;
	address.svm_port = atoi(argv[1]);
	for (int i = 0; i < atoi(argv[2]); i++) {
		char answer[256];
		ssize_t count;
		int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

		if (fd < 0 || connect(fd, (void *)&address, sizeof(address)) < 0) {
			printf("no connection: %s\n", strerror(errno));
			return 0;
		}
		/* Fails if it is closed already. */
		if (send(fd, greeting, strlen(greeting), MSG_NOSIGNAL) < 0 &&
		    errno != EPIPE && errno != ECONNRESET) {
			printf("cannot send: %s\n", strerror(errno));
			return 0;
		}
		count = recv(fd, answer, sizeof(answer), 0);
		if (count > 0) {
			printf("answered: %.*s\n", (int)count, answer);
			return 0;
		}
		if (count < 0 && errno != ECONNRESET) {
			printf("cannot receive: %s\n", strerror(errno));
			return 0;
		}
		closed++;
		close(fd);
	}
	printf("%d closed without a word\n", closed);
	return 0;
}
