// SPDX-License-Identifier: Apache-2.0
// A routing application in C: it authenticates POP3 users, and gives whoever has the mailbox the authenticated connection:
// the user is the application state. The client sees one server; the mailbox's never asks for the password.
//
// Usage: router SOCKET SERVICE NAME USER:PASSWORD=JOB... SOCKET is the control socket of the host's daemon, SERVICE a DVIPA
// and port as in 10.77.0.10:110.
#include "baton_app.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS_MAX = 64, COMMAND_MAX = 255 }; // a command of POP3 in octets (RFC 2449, section 4)

// struct client is a connection in our hands.
struct client {
	int stream; // -1: free
	uint64_t conn;
	char user[COMMAND_MAX + 1];
	const char *job; // who has the mailbox
	bool leaving;    // a transfer is under way: its octets are not ours to read
};

// struct router is what the command line says, and everybody who is there.
struct router {
	struct baton_app *app;
	char **accounts; // USER:PASSWORD=JOB, the last is NULL
	struct client clients[CLIENTS_MAX];
};

static void say(struct client *c, const char *line)
{
	char text[2 * COMMAND_MAX];
	int size = snprintf(text, sizeof(text), "%.400s\r\n", line);

	if (send(c->stream, text, size, MSG_NOSIGNAL) != size)
		perror("send");
}

static void drop(struct client *c)
{
	close(c->stream);
	c->stream = -1;
}

static struct client *find(struct router *r, uint64_t conn)
{
	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		if (r->clients[i].stream >= 0 && r->clients[i].conn == conn)
			return &r->clients[i];
	}
	return NULL;
}

// greet begins with a client. With too many it is closed, and the daemon refuses it.
static void greet(struct router *r, struct baton_app_message *m)
{
	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		struct client *c = &r->clients[i];

		if (c->stream >= 0)
			continue;
		*c = (struct client){.stream = baton_app_connection_take(m), .conn = m->conn};
		say(c, "+OK POP3 ready");
		return;
	}
}

// job_of returns who has the mailbox of a user with that password; NULL if there is none.
static const char *job_of(const struct router *r, const char *user, const char *password)
{
	char account[2 * COMMAND_MAX + 3];
	size_t size = snprintf(account, sizeof(account), "%s:%s=", user, password);

	for (char **known = r->accounts; *known; known++) {
		if (!strncmp(*known, account, size))
			return *known + size;
	}
	return NULL;
}

// hand asks for the connection to be handed over once the client has acknowledged every answer.
static void hand(struct router *r, struct client *c)
{
	char state[2 * COMMAND_MAX];
	struct baton_app_wish wish = {.job = c->job, .state = state, .quiescent = true};
	int error;

	wish.state_size = snprintf(state, sizeof(state), "{\"user\": \"%s\"}", c->user);
	error = baton_app_transfer(r->app, c->conn, &wish);
	if (!error) {
		c->leaving = true;
		return;
	}
	fprintf(stderr, "transfer %s: %s\n", c->user, strerror(-error));
	drop(c);
}

// command answers a line (RFC 1939). That with the right password is answered by whoever has the mailbox.
static void command(struct router *r, struct client *c, char *line)
{
	char *argument = strchr(line, ' ');

	if (argument)
		*argument++ = 0;
	if (!strcasecmp(line, "USER") && argument && !strpbrk(argument, "\"\\:")) {
		strcpy(c->user, argument);
		say(c, "+OK");
	} else if (!strcasecmp(line, "PASS")) {
		c->job = argument ? job_of(r, c->user, argument) : NULL;
		if (c->job)
			hand(r, c);
		else
			say(c, "-ERR [AUTH] wrong");
	} else if (!strcasecmp(line, "QUIT")) {
		say(c, "+OK bye");
		drop(c);
	} else {
		say(c, "-ERR who are you?");
	}
}

// hear reads a line and no more: what the client has sent after it stays for who has the mailbox.
static void hear(struct router *r, struct client *c)
{
	char line[COMMAND_MAX + 1];
	ssize_t size = recv(c->stream, line, COMMAND_MAX, MSG_PEEK | MSG_DONTWAIT);
	char *end = size > 0 ? memchr(line, '\n', size) : NULL;

	if (size <= 0 || (!end && size == COMMAND_MAX)) {
		drop(c);
		return;
	}
	if (!end) { // it goes on; poll() would tell us of what we have seen
		usleep(1000);
		return;
	}
	if (recv(c->stream, line, end + 1 - line, 0) != end + 1 - line) {
		drop(c);
		return;
	}
	*end = 0;
	line[strcspn(line, "\r")] = 0;
	command(r, c, line);
}

// rejected lets the client log in as somebody else.
static void rejected(struct client *c, const struct baton_app_message *m)
{
	char line[2 * COMMAND_MAX];

	snprintf(line, sizeof(line), "-ERR %s: %s: %s", m->by, m->code, m->detail);
	c->leaving = false;
	say(c, line);
}

// answered takes what became of a transfer, or the end of a client.
static void answered(struct router *r, const struct baton_app_message *m, const char *outcome)
{
	struct client *c = find(r, m->conn);

	if (!c)
		return;
	if (c->leaving)
		printf("transfer %s %s %s\n", c->user, c->job, outcome);
	if (m->type == BATON_APP_REJECTED)
		rejected(c, m);
	else
		drop(c);
}

// control takes a message. It returns false at the end.
static bool control(struct router *r)
{
	struct baton_app_message m;
	int error = baton_app_receive(r->app, &m);

	if (error || m.type == BATON_APP_END) {
		fprintf(stderr, "control socket: %s\n", error ? strerror(-error) : "the daemon is gone");
		return false;
	}
	switch (m.type) {
	case BATON_APP_REGISTERED:
		printf("registered %s\n", m.service);
		break;
	case BATON_APP_CONNECTION:
		greet(r, &m);
		break;
	case BATON_APP_ACCEPTED:
		answered(r, &m, "accepted");
		break;
	case BATON_APP_REJECTED:
		answered(r, &m, "rejected");
		break;
	case BATON_APP_ENDED:
		answered(r, &m, "ended");
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

// turn waits for whoever says something next. It returns false at the end.
static bool turn(struct router *r)
{
	struct pollfd ready[1 + CLIENTS_MAX] = {{.fd = baton_app_fd(r->app), .events = POLLIN}};

	for (size_t i = 0; i < CLIENTS_MAX; i++) // poll() passes over -1
		ready[1 + i] =
		    (struct pollfd){.fd = r->clients[i].leaving ? -1 : r->clients[i].stream, .events = POLLIN};
	if (poll(ready, 1 + CLIENTS_MAX, -1) < 0)
		return false;
	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		if (ready[1 + i].revents)
			hear(r, &r->clients[i]);
	}
	return !ready[0].revents || control(r);
}

int main(int argc, char **argv)
{
	struct router r;
	int error;

	if (argc < 5) {
		fprintf(stderr, "usage: %s SOCKET SERVICE NAME USER:PASSWORD=JOB...\n", argv[0]);
		return 2;
	}
	r = (struct router){.accounts = argv + 4};
	for (size_t i = 0; i < CLIENTS_MAX; i++)
		r.clients[i].stream = -1;
	error = baton_app_open(&r.app, argv[1]);
	if (error) {
		fprintf(stderr, "%s: %s\n", argv[1], strerror(-error));
		return 1;
	}
	if (!baton_app_register_router(r.app, argv[2], argv[3])) {
		while (turn(&r))
			;
	}
	baton_app_close(r.app);
	return 1;
}
