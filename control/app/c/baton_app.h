// SPDX-License-Identifier: Apache-2.0
// A control socket for applications in C. The protocol is that of the documentation of baton/control/app. Needs libc and
// json-c.
//
// A target application registers for a job, is offered each connection with the application state that the routing
// application gives, accepts or rejects it, and finds it in accept(), by the client's address and port. It may give its
// connections on, to other jobs and hosts.
//
// A routing application registers for a service, gets each client's octets as a stream socket, talks with the client for as
// long as it likes, and asks for the connection to be handed to a job. What it has only peeked at (MSG_PEEK) is the target's
// to read. Both may write to other applications.
//
// Functions return 0, or a negative errno. A struct baton_app may be received from by one thread while others send.
#ifndef BATON_APP_H
#define BATON_APP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Octets of application state at most.
#define BATON_APP_STATE_MAX (1u << 20)

// Octets of a message to another application at most, and of its tag and each text of an address.
#define BATON_APP_DATA_MAX (32u << 10)
#define BATON_APP_TEXT_MAX 255u

struct baton_app;

enum baton_app_type {
	BATON_APP_END,        // the daemon has closed the control socket
	BATON_APP_REGISTERED, // service; of a target application: job
	BATON_APP_OFFER,      // transfer, client, service, job, from, state
	BATON_APP_ARRIVED,    // transfer, client: in the accept queue; from and state, if it was never offered
	BATON_APP_CANCELED,   // transfer, client, detail: it will not come
	BATON_APP_ERROR,      // seq, code, detail: a request cannot be carried out, or a message is not delivered
	BATON_APP_GIVEN,      // seq, host: the connection is somebody else's; close it
	BATON_APP_CONNECTION, // conn, client, service: of a routing application; from and state, if a target gave it back
	BATON_APP_ACCEPTED,   // conn, host: the connection is somebody else's; close its stream
	BATON_APP_REJECTED,   // seq or conn, by, code, detail: it was not given, or not handed over, and goes on
	BATON_APP_ENDED,      // seq, detail: nobody knows who has the connection; close it. Or conn: the client is gone
	BATON_APP_MESSAGE,    // from, tag, data: of another application
	BATON_APP_OTHER,      // of a type that this library does not know
};

// struct baton_app_party is an application. As an address it names those for whom all is true that is not NULL, empty or
// 0. The host is this one if there is none; one of the others is needed.
struct baton_app_party {
	const char *host;
	const char *role; // "router" or "target"
	const char *name; // as it calls itself; empty in an offer: it is built in
	const char *job;  // of a target application
	uint64_t id;      // of its control socket; in BATON_APP_MESSAGE, so an answer reaches the same one
};

// struct baton_app_message is what the daemon says. Texts that it does not say are empty, never NULL. All of it is valid
// until baton_app_message_release.
struct baton_app_message {
	enum baton_app_type type;
	uint64_t seq; // of the request that this answers
	uint64_t transfer;
	uint64_t conn;
	const char *client; // address and port, as in 10.77.0.100:4000 or [2001:db8::1]:4000
	const char *service;
	const char *job;
	struct baton_app_party from;
	const char *host;
	const char *by; // "router", "stack" or "application"
	const char *code;
	const char *detail;
	const uint8_t *state;
	size_t state_size; // octets
	const char *tag;
	const uint8_t *data;
	size_t data_size; // octets
	int connection;   // the library's: baton_app_connection_take
	void *json;       // the library's
	uint8_t *octets;  // the library's
};

// baton_app_open connects to the daemon's control socket. *app is the caller's to close.
int baton_app_open(struct baton_app **app, const char *path);

// baton_app_close ends the registration. Offers that were not answered are rejected. NULL is allowed.
void baton_app_close(struct baton_app *app);

// baton_app_fd is the socket, for poll(): readable when baton_app_receive does not block.
int baton_app_fd(const struct baton_app *app);

// baton_app_register registers for a job. service ("10.77.0.10:110") may be NULL if the job has only one; name is for
// operators. The answer is BATON_APP_REGISTERED or BATON_APP_ERROR.
int baton_app_register(struct baton_app *app, const char *job, const char *service, const char *name);

// baton_app_register_router registers a routing application for a service ("10.77.0.10:110"). The answer is
// BATON_APP_REGISTERED or BATON_APP_ERROR.
int baton_app_register_router(struct baton_app *app, const char *service, const char *name);

// struct baton_app_wish is what a routing application wants of a transfer.
struct baton_app_wish {
	const char *job;
	const char *host;   // NULL: any of the job
	const void *state;  // for the target application
	size_t state_size;  // octets
	bool quiescent;     // wait until the client has acknowledged everything, instead of being rejected
	bool unconditional; // do not ask the target application
};

// baton_app_transfer asks for a connection to be handed over. BATON_APP_ACCEPTED, BATON_APP_REJECTED or BATON_APP_ENDED
// follows; until then the application must not read from the connection. -EMSGSIZE: too much state.
int baton_app_transfer(struct baton_app *app, uint64_t conn, const struct baton_app_wish *wish);

// baton_app_connection_take is the stream socket of a BATON_APP_CONNECTION, which is the caller's to close from now on; -1:
// there is none. One that is not taken is closed with the message.
int baton_app_connection_take(struct baton_app_message *message);

// baton_app_accept takes the connection of an offer; BATON_APP_ARRIVED or BATON_APP_CANCELED follows.
int baton_app_accept(struct baton_app *app, uint64_t transfer);

// baton_app_reject does not take it; the reason reaches the routing application.
int baton_app_reject(struct baton_app *app, uint64_t transfer, const char *reason);

// baton_app_give gives a connection that has come to a job: at a host, or NULL: at any other than this one; without a
// job back to the routing application. state may be NULL. seq, which is not 0, comes back with the answer:
// BATON_APP_GIVEN, BATON_APP_REJECTED, BATON_APP_ENDED, or BATON_APP_ERROR, after which the connection goes on. Until then
// nobody may read from it or write to it. It is always the caller's to close. What the socket holds unread goes with it,
// so nothing may be read ahead. -EMSGSIZE: too much state.
int baton_app_give(struct baton_app *app, int connection, const char *job, const char *host, const void *state,
		   size_t state_size, uint64_t seq);

// baton_app_send sends data to the application that has been registered for longest of those that the address names. It
// comes once or not at all, after those before. BATON_APP_ERROR with seq tells that nobody was given it, if that is known.
// -EMSGSIZE: too much data.
int baton_app_send(struct baton_app *app, const struct baton_app_party *to, const char *tag, const void *data,
		   size_t data_size, uint64_t seq);

// baton_app_receive waits for the next message. -EBADMSG is one that cannot be read, after which the next may be.
int baton_app_receive(struct baton_app *app, struct baton_app_message *message);

void baton_app_message_release(struct baton_app_message *message);

#endif
