// SPDX-License-Identifier: Apache-2.0
// A target application in C: it takes the connections of a job, and tells each client the state that came with it, as a POP3
// server would its user. It rejects those whose state has "locked" in it. The client may also say
//
//	GIVE JOB [HOST]   give the connection on, with its state; to "-": back to the routing application
//	TELL HOST TEXT    write to the application of the same name at a host, and say what it answers
//
// Usage: target SOCKET JOB PORT NAME. SOCKET is the control socket of the host's daemon.
#include "baton_app.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WAITING_MAX = 64, CLIENT_MAX = 64, STATE_MAX = 200, LINE_MAX = 512 };

// struct waiting is the state of a connection that is to come.
struct waiting {
	char client[CLIENT_MAX]; // "": free
	char state[STATE_MAX + 1];
};

static struct waiting waiting[WAITING_MAX];

// answer is the last one to a request.
static struct {
	uint64_t seq;
	enum baton_app_type type;
	char text[LINE_MAX];
} answer;

static uint64_t requests;
static const char *self; // the name that clients and other applications see

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

// expect remembers the state of a connection that is to come; NULL: there are too many.
static struct waiting *expect(const struct baton_app_message *m)
{
	struct waiting *place = find("");
	size_t size = m->state_size < STATE_MAX ? m->state_size : STATE_MAX;

	if (!place)
		return NULL;
	memcpy(place->state, m->state, size);
	place->state[size] = 0;
	snprintf(place->client, sizeof(place->client), "%s", m->client);
	return place;
}

// decide answers an offer.
static int decide(struct baton_app *app, const struct baton_app_message *m)
{
	struct waiting *of = expect(m);

	if (!of)
		return baton_app_reject(app, m->transfer, "too many connections");
	printf("offer %s %zu octets from %s\n", m->client, m->state_size, m->from.name);
	if (!strstr(of->state, "locked"))
		return baton_app_accept(app, m->transfer);
	of->client[0] = 0;
	return baton_app_reject(app, m->transfer, "the mailbox is locked");
}

// settle notes the answer to a request.
static void settle(const struct baton_app_message *m, uint64_t seq)
{
	answer.seq = seq;
	answer.type = m->type;
	if (m->type == BATON_APP_MESSAGE)
		snprintf(answer.text, sizeof(answer.text), "%.*s", (int)m->data_size, (const char *)m->data);
	else
		snprintf(answer.text, sizeof(answer.text), "%s: %s", m->code, m->detail);
}

// talk takes what another application says: an answer, or something to answer.
static int talk(struct baton_app *app, const struct baton_app_message *m)
{
	char tag[BATON_APP_TEXT_MAX + 8], text[LINE_MAX];
	unsigned long long number;

	if (sscanf(m->tag, "answer %llu", &number) == 1) {
		settle(m, number);
		return 0;
	}
	if (sscanf(m->tag, "ask %llu", &number) != 1)
		return 0;
	snprintf(tag, sizeof(tag), "answer %llu", number);
	snprintf(text, sizeof(text), "%s heard %.*s", self, (int)m->data_size, (const char *)m->data);
	return baton_app_send(app, &m->from, tag, text, strlen(text), 0);
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
		if (!find(m.client)) // it was assigned without an offer
			expect(&m);
		break;
	case BATON_APP_CANCELED:
		of = find(m.client);
		if (of)
			of->client[0] = 0;
		break;
	case BATON_APP_MESSAGE:
		error = talk(app, &m);
		break;
	case BATON_APP_GIVEN:
	case BATON_APP_REJECTED:
	case BATON_APP_ENDED:
		settle(&m, m.seq);
		break;
	case BATON_APP_ERROR:
		if (m.seq) {
			settle(&m, m.seq);
			break;
		}
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

// request waits for the answer to a request, which says an error if it could not be sent. It returns false at the end.
static bool request(struct baton_app *app, int error)
{
	if (error) {
		fprintf(stderr, "request: %s\n", strerror(-error));
		return false;
	}
	while (answer.seq != requests) {
		if (!hear(app))
			return false;
	}
	return true;
}

// give gives the connection on, and returns whether it is over here.
static bool give(struct baton_app *app, int connection, const char *job, const char *host, const struct waiting *of)
{
	char line[2 * LINE_MAX];

	if (!request(app, baton_app_give(app, connection, strcmp(job, "-") ? job : NULL, host, of->state,
					 strlen(of->state), ++requests)))
		return true;
	printf("gave to %s: %s\n", job, answer.type == BATON_APP_GIVEN ? "given" : answer.text);
	fflush(stdout);
	if (answer.type == BATON_APP_GIVEN || answer.type == BATON_APP_ENDED)
		return true;
	snprintf(line, sizeof(line), "-ERR %s", answer.text);
	say(connection, line);
	return false;
}

// tell writes to the application at a host, and tells the client what that answers.
static void tell(struct baton_app *app, int connection, const char *name, const char *host, const char *text)
{
	struct baton_app_party to = {.host = host, .name = name};
	char line[2 * LINE_MAX];

	snprintf(line, sizeof(line), "ask %llu", (unsigned long long)++requests);
	if (!request(app, baton_app_send(app, &to, line, text, strlen(text), requests)))
		return;
	snprintf(line, sizeof(line), "%s %s", answer.type == BATON_APP_MESSAGE ? "+OK" : "-ERR", answer.text);
	say(connection, line);
}

// serve greets the user and answers until QUIT or GIVE; this example has one client at a time.
static void serve(struct baton_app *app, int connection, const char *job, const struct waiting *of)
{
	char line[LINE_MAX], first[LINE_MAX], rest[LINE_MAX];
	FILE *lines = fdopen(connection, "r");

	if (!lines) {
		close(connection);
		return;
	}
	setvbuf(lines, NULL, _IONBF, 0); // what is read ahead would not go with the connection
	snprintf(line, sizeof(line), "+OK %s knows %s", self, of->state);
	say(connection, line);
	while (fgets(line, sizeof(line), lines)) {
		int words = sscanf(line, "%*s %s %[^\r\n]", first, rest);

		if (!strncmp(line, "QUIT", 4)) {
			say(connection, "+OK bye");
			break;
		}
		if (!strncmp(line, "GIVE ", 5) && words >= 1) {
			if (give(app, connection, first, words > 1 ? rest : NULL, of))
				break;
		} else if (!strncmp(line, "TELL ", 5) && words > 1) {
			tell(app, connection, job, first, rest);
		} else {
			say(connection, strncmp(line, "STAT", 4) ? "-ERR what?" : "+OK 0 0");
		}
	}
	fclose(lines);
}

// take takes a connection from the accept queue and finds its state by its client.
static void take(struct baton_app *app, int listener, const char *job)
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
	serve(app, connection, job, of);
	of->client[0] = 0;
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
	signal(SIGPIPE, SIG_IGN); // a client that leaves early is an error of write()
	self = argv[4];
	listener = listen_on(argv[3]);
	app = open_control(argv[1]);
	error = baton_app_register(app, argv[2], NULL, argv[2]);
	while (!error) {
		struct pollfd ready[] = {{.fd = baton_app_fd(app), .events = POLLIN},
					 {.fd = listener, .events = POLLIN}};

		if (poll(ready, 2, -1) < 0)
			break;
		// Offers first: they come before their connections.
		if (ready[0].revents && !hear(app))
			break;
		if (ready[1].revents)
			take(app, listener, argv[2]);
	}
	baton_app_close(app);
	return 1;
}
