// SPDX-License-Identifier: Apache-2.0 OR MIT
// Listens on a TCP port, answers one connection, and ends: answer PORT TEXT
#include <arpa/inet.h>
#include <err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_in here = { .sin_family = AF_INET };
	int listener, connection;

	if (argc != 3)
		errx(2, "usage: answer PORT TEXT");
	here.sin_port = htons(atoi(argv[1]));
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&here, sizeof(here)) || listen(listener, 1))
		err(1, "cannot listen on port %s", argv[1]);
	connection = accept(listener, NULL, NULL);
	if (connection < 0 || write(connection, argv[2], strlen(argv[2])) < 0)
		err(1, "cannot answer");
	return close(connection);
}
