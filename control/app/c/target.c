// SPDX-License-Identifier: Apache-2.0
// A target application in C: it takes the connections of a job, and tells each client the state that came with it, as a POP3
// server would its user. It rejects those whose state has "locked" in it.
//
// Usage: target SOCKET JOB PORT NAME. SOCKET is the control socket of the host's daemon.
#include "baton_app.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WAITING_MAX = 64, CLIENT_MAX = 64, STATE_MAX = 200 };

// struct waiting is the state of a connection that is to come.
struct waiting {
	char client[CLIENT_MAX]; // "": free
	char state[STATE_MAX + 1];
};

static struct waiting waiting[WAITING_MAX];

static struct waiting *find(const char *client)
{
	for (size_t i = 0; i < WAITING_MAX; i++) {
		if (!strcmp(waiting[i].client, client))
			return &waiting[i];
	}
	return NULL;
}

static void say(int connection, const char *line)
{
	if (dprintf(connection, "%s\r\n", line) < 0)
		perror("write");
}

// serve greets the user and answers until QUIT; this example has one client at a time.
static void serve(int connection, const char *name, const struct waiting *of)
{
	char line[512];
	FILE *lines = fdopen(connection, "r");

	if (!lines) {
		close(connection);
		return;
	}
	snprintf(line, sizeof(line), "+OK %s knows %s", name, of->state);
	say(connection, line);
	while (fgets(line, sizeof(line), lines)) {
		if (!strncmp(line, "QUIT", 4)) {
			say(connection, "+OK bye");
			break;
		}
		say(connection, strncmp(line, "STAT", 4) ? "-ERR what?" : "+OK 0 0");
	}
	fclose(lines);
}

// take takes a connection from the accept queue and finds its state by its client.
static void take(int listener, const char *name)
{
	struct sockaddr_in peer;
	socklen_t size = sizeof(peer);
	char address[INET_ADDRSTRLEN], client[CLIENT_MAX];
	struct waiting *of;
	int connection = accept(listener, (struct sockaddr *)&peer, &size);

	if (connection < 0) {
		perror("accept");
		return;
	}
	inet_ntop(AF_INET, &peer.sin_addr, address, sizeof(address));
	snprintf(client, sizeof(client), "%s:%u", address, ntohs(peer.sin_port));
	of = find(client);
	if (!of) {
		close(connection);
		return;
	}
	serve(connection, name, of);
	of->client[0] = 0;
}

// decide answers an offer.
static int decide(struct baton_app *app, const struct baton_app_message *m)
{
	struct waiting *place = find("");
	size_t size = m->state_size < STATE_MAX ? m->state_size : STATE_MAX;

	if (!place)
		return baton_app_reject(app, m->transfer, "too many connections");
	memcpy(place->state, m->state, size);
	place->state[size] = 0;
	printf("offer %s %zu octets from %s\n", m->client, m->state_size, m->from_name);
	if (strstr(place->state, "locked"))
		return baton_app_reject(app, m->transfer, "the mailbox is locked");
	snprintf(place->client, sizeof(place->client), "%s", m->client);
	return baton_app_accept(app, m->transfer);
}

// hear takes a message. It returns false at the end.
static bool hear(struct baton_app *app)
{
	struct baton_app_message m;
	struct waiting *of;
	int error = baton_app_receive(app, &m);

	if (error || m.type == BATON_APP_END) {
		fprintf(stderr, "control socket: %s\n", error ? strerror(-error) : "the daemon is gone");
		return false;
	}
	switch (m.type) {
	case BATON_APP_REGISTERED:
		printf("registered %s\n", m.service);
		break;
	case BATON_APP_OFFER:
		error = decide(app, &m);
		break;
	case BATON_APP_ARRIVED:
		printf("arrived %s\n", m.client);
		break;
	case BATON_APP_CANCELED:
		of = find(m.client);
		if (of)
			of->client[0] = 0;
		break;
	case BATON_APP_ERROR:
		fprintf(stderr, "%s: %s\n", m.code, m.detail);
		error = -1;
		break;
	default:
		break;
	}
	fflush(stdout);
	baton_app_message_release(&m);
	return !error;
}

static int listen_on(const char *port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
	int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ||
	    bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 128)) {
		perror("listen");
		exit(1);
	}
	return listener;
}

// open_control waits for the daemon, which may start after its applications.
static struct baton_app *open_control(const char *path)
{
	struct baton_app *app;

	while (baton_app_open(&app, path))
		usleep(50000);
	return app;
}

int main(int argc, char **argv)
{
	struct baton_app *app;
	int listener, error;

	if (argc != 5) {
		fprintf(stderr, "usage: %s SOCKET JOB PORT NAME\n", argv[0]);
		return 2;
	}
	listener = listen_on(argv[3]);
	app = open_control(argv[1]);
	error = baton_app_register(app, argv[2], NULL, "c-target");
	while (!error) {
		struct pollfd ready[] = {{.fd = baton_app_fd(app), .events = POLLIN},
					 {.fd = listener, .events = POLLIN}};

		if (poll(ready, 2, -1) < 0)
			break;
		// Offers first: they come before their connections.
		if (ready[0].revents && !hear(app))
			break;
		if (ready[1].revents)
			take(listener, argv[4]);
	}
	baton_app_close(app);
	return 1;
}
