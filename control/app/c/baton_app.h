// SPDX-License-Identifier: Apache-2.0
// A control socket for target applications in C: an application registers for a job, is offered each connection with the
// application state that the routing application gives, accepts or rejects it, and finds it in accept(), by the client's
// address and port. The protocol is that of the documentation of baton/control/app. Needs libc and json-c.
//
// Functions return 0, or a negative errno. A struct baton_app may be received from by one thread while others send.
#ifndef BATON_APP_H
#define BATON_APP_H

#include <stddef.h>
#include <stdint.h>

// Octets of application state at most.
#define BATON_APP_STATE_MAX (1u << 20)

struct baton_app;

enum baton_app_type {
	BATON_APP_END,        // the daemon has closed the control socket
	BATON_APP_REGISTERED, // service, job
	BATON_APP_OFFER,      // transfer, client, service, job, from_host, from_name, state
	BATON_APP_ARRIVED,    // transfer, client: in the accept queue; state, if it was never offered
	BATON_APP_CANCELED,   // transfer, client, detail: it will not come
	BATON_APP_ERROR,      // code, detail
	BATON_APP_OTHER,      // of a type that this library does not know
};

// struct baton_app_message is what the daemon says. Texts that it does not say are empty, never NULL. All of it is valid
// until baton_app_message_release.
struct baton_app_message {
	enum baton_app_type type;
	uint64_t transfer;
	const char *client; // address and port, as in 10.77.0.100:4000 or [2001:db8::1]:4000
	const char *service;
	const char *job;
	const char *from_host; // the routing host
	const char *from_name; // its routing application
	const char *code;
	const char *detail;
	const uint8_t *state;
	size_t state_size; // octets
	void *json;        // the library's
	uint8_t *octets;   // the library's
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

// baton_app_accept takes the connection of an offer; BATON_APP_ARRIVED or BATON_APP_CANCELED follows.
int baton_app_accept(struct baton_app *app, uint64_t transfer);

// baton_app_reject does not take it; the reason reaches the routing application.
int baton_app_reject(struct baton_app *app, uint64_t transfer, const char *reason);

// baton_app_receive waits for the next message. -EBADMSG is one that cannot be read, after which the next may be.
int baton_app_receive(struct baton_app *app, struct baton_app_message *message);

void baton_app_message_release(struct baton_app_message *message);

#endif
