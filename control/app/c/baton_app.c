// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "baton_app.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <json-c/json.h>

enum {
	MESSAGE_MAX = 64 << 10, // octets of one packet
	INLINE_MAX = 32 << 10,  // octets of state, before base64, that go into the packet itself
	FILES_MAX = 4,
	SEALS = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW,
};

struct baton_app {
	int fd;
	char in[MESSAGE_MAX];
};

// struct baton_files are the file descriptors of a packet.
struct baton_files {
	int fds[FILES_MAX];
	size_t count;
};

int baton_app_open(struct baton_app **app, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct baton_app *opened;
	int error;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	opened = malloc(sizeof(*opened));
	if (!opened)
		return -ENOMEM;
	opened->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (opened->fd < 0 || connect(opened->fd, (struct sockaddr *)&address, sizeof(address))) {
		error = -errno;
		baton_app_close(opened);
		return error;
	}
	*app = opened;
	return 0;
}

void baton_app_close(struct baton_app *app)
{
	if (app && app->fd >= 0)
		close(app->fd);
	free(app);
}

int baton_app_fd(const struct baton_app *app)
{
	return app->fd;
}

// baton_packet_send sends an octet string with file descriptors, which remain the caller's (unix(7)).
static int baton_packet_send(struct baton_app *app, const char *text, size_t size, const struct baton_files *files)
{
	union {
		char octets[CMSG_SPACE(FILES_MAX * sizeof(int))];
		struct cmsghdr aligned;
	} control = {.octets = {0}};
	struct iovec out = {.iov_base = (char *)text, .iov_len = size};
	struct msghdr header = {.msg_iov = &out, .msg_iovlen = 1};

	if (size > MESSAGE_MAX)
		return -EMSGSIZE;
	if (files && files->count > 0) {
		size_t fds = files->count * sizeof(int);

		header.msg_control = &control;
		header.msg_controllen = CMSG_SPACE(fds);
		control.aligned.cmsg_level = SOL_SOCKET;
		control.aligned.cmsg_type = SCM_RIGHTS;
		control.aligned.cmsg_len = CMSG_LEN(fds);
		memcpy(CMSG_DATA(&control.aligned), files->fds, fds);
	}
	return sendmsg(app->fd, &header, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

// baton_send sends an object with file descriptors, and frees it.
static int baton_send(struct baton_app *app, struct json_object *object, const struct baton_files *files)
{
	size_t size;
	// A slash is a digit of base64: escaped, some state would be too long for a packet.
	const int flags = JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE;
	const char *text = json_object_to_json_string_length(object, flags, &size);
	int error = text ? baton_packet_send(app, text, size, files) : -ENOMEM;

	json_object_put(object);
	return error;
}

// baton_text adds a text, if there is one.
static void baton_text(struct json_object *object, const char *key, const char *text)
{
	if (text && *text)
		json_object_object_add(object, key, json_object_new_string(text));
}

static int baton_register(struct baton_app *app, const char *role, const char *job, const char *service,
			  const char *name)
{
	struct json_object *object = json_object_new_object();

	baton_text(object, "type", "register");
	baton_text(object, "role", role);
	baton_text(object, "job", job);
	baton_text(object, "service", service);
	baton_text(object, "name", name);
	return baton_send(app, object, NULL);
}

int baton_app_register(struct baton_app *app, const char *job, const char *service, const char *name)
{
	return baton_register(app, "target", job, service, name);
}

int baton_app_register_router(struct baton_app *app, const char *service, const char *name)
{
	return baton_register(app, "router", NULL, service, name);
}

static int baton_answer(struct baton_app *app, const char *type, uint64_t transfer, const char *detail)
{
	struct json_object *object = json_object_new_object();

	baton_text(object, "type", type);
	json_object_object_add(object, "transfer", json_object_new_uint64(transfer));
	baton_text(object, "detail", detail);
	return baton_send(app, object, NULL);
}

int baton_app_accept(struct baton_app *app, uint64_t transfer)
{
	return baton_answer(app, "accept", transfer, NULL);
}

int baton_app_reject(struct baton_app *app, uint64_t transfer, const char *reason)
{
	return baton_answer(app, "reject", transfer, reason);
}

int baton_app_connection_take(struct baton_app_message *message)
{
	int connection = message->connection;

	message->connection = -1;
	return connection;
}

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// baton_octets adds octets in base64 (RFC 4648, section 4).
static int baton_octets(struct json_object *object, const char *key, const uint8_t *octets, size_t size)
{
	char *text = malloc((size + 2) / 3 * 4 + 1), *end = text;

	if (!text)
		return -ENOMEM;
	for (size_t i = 0; i < size; i += 3) {
		size_t have = size - i < 3 ? size - i : 3;
		uint32_t bits = (uint32_t)octets[i] << 16;

		bits |= have > 1 ? (uint32_t)octets[i + 1] << 8 : 0;
		bits |= have > 2 ? octets[i + 2] : 0;
		*end++ = digits[bits >> 18];
		*end++ = digits[bits >> 12 & 63];
		*end++ = have > 1 ? digits[bits >> 6 & 63] : '=';
		*end++ = have > 2 ? digits[bits & 63] : '=';
	}
	*end = 0;
	baton_text(object, key, text);
	free(text);
	return 0;
}

// baton_memfd makes a memfd of octets that nobody can change any more (memfd_create(2)).
static int baton_memfd(const void *octets, size_t size)
{
	int fd = memfd_create("baton-state", MFD_CLOEXEC | MFD_ALLOW_SEALING), error;

	if (fd < 0)
		return -errno;
	if (pwrite(fd, octets, size, 0) == (ssize_t)size && !fcntl(fd, F_ADD_SEALS, SEALS))
		return fd;
	error = errno ? -errno : -ENOSPC;
	close(fd);
	return error;
}

// baton_file adds a file descriptor and its name.
static void baton_file(struct json_object *names, struct baton_files *files, const char *name, int fd)
{
	json_object_array_add(names, json_object_new_string(name));
	files->fds[files->count++] = fd;
}

// baton_request_state sends a request, and frees it, with a connection (-1: none) and state.
static int baton_request_state(struct baton_app *app, struct json_object *object, int connection, const void *state,
			       size_t state_size)
{
	struct json_object *names = json_object_new_array();
	struct baton_files files = {.count = 0};
	int memfd = -1, error = 0;

	if (state_size > BATON_APP_STATE_MAX)
		error = -EMSGSIZE;
	else if (state_size > INLINE_MAX)
		error = (memfd = baton_memfd(state, state_size)) < 0 ? memfd : 0;
	else
		error = baton_octets(object, "state", state, state_size);
	if (connection >= 0)
		baton_file(names, &files, "connection", connection);
	if (memfd >= 0)
		baton_file(names, &files, "state", memfd);
	json_object_object_add(object, "files", names);
	if (error)
		json_object_put(object);
	else
		error = baton_send(app, object, &files);
	if (memfd >= 0)
		close(memfd);
	return error;
}

int baton_app_give(struct baton_app *app, int connection, const char *job, const char *host, const void *state,
		   size_t state_size, uint64_t seq)
{
	struct json_object *object = json_object_new_object();

	baton_text(object, "type", "give");
	json_object_object_add(object, "seq", json_object_new_uint64(seq));
	baton_text(object, "job", job);
	baton_text(object, "host", host);
	return baton_request_state(app, object, connection, state, state_size);
}

int baton_app_transfer(struct baton_app *app, uint64_t conn, const struct baton_app_wish *wish)
{
	struct json_object *object = json_object_new_object();

	baton_text(object, "type", "transfer");
	json_object_object_add(object, "conn", json_object_new_uint64(conn));
	baton_text(object, "job", wish->job);
	baton_text(object, "host", wish->host);
	baton_text(object, "when", wish->quiescent ? "quiescent" : "now");
	json_object_object_add(object, "unconditional", json_object_new_boolean(wish->unconditional));
	return baton_request_state(app, object, -1, wish->state, wish->state_size);
}

int baton_app_send(struct baton_app *app, const struct baton_app_party *to, const char *tag, const void *data,
		   size_t data_size, uint64_t seq)
{
	struct json_object *object, *party;
	int error;

	if (data_size > BATON_APP_DATA_MAX)
		return -EMSGSIZE;
	object = json_object_new_object();
	party = json_object_new_object();
	baton_text(party, "host", to->host);
	baton_text(party, "role", to->role);
	baton_text(party, "name", to->name);
	baton_text(party, "job", to->job);
	json_object_object_add(party, "id", json_object_new_uint64(to->id));
	baton_text(object, "type", "message");
	json_object_object_add(object, "seq", json_object_new_uint64(seq));
	json_object_object_add(object, "to", party);
	baton_text(object, "tag", tag);
	error = baton_octets(object, "data", data, data_size);
	if (!error)
		return baton_send(app, object, NULL);
	json_object_put(object);
	return error;
}

// baton_files_take takes the file descriptors out of ancillary data (unix(7)).
static void baton_files_take(struct baton_files *files, struct msghdr *header)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
		size_t fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		memcpy(files->fds, CMSG_DATA(c), fds * sizeof(int)); // the buffer has room for FILES_MAX only
		files->count = fds;
	}
}

static void baton_files_close(struct baton_files *files)
{
	for (size_t i = 0; i < files->count; i++) {
		if (files->fds[i] >= 0)
			close(files->fds[i]);
	}
}

// baton_packet_receive reads a packet; 0 octets are the end.
static ssize_t baton_packet_receive(struct baton_app *app, struct baton_files *files)
{
	union {
		char octets[CMSG_SPACE(FILES_MAX * sizeof(int))];
		struct cmsghdr aligned;
	} control;
	struct iovec in = {.iov_base = app->in, .iov_len = sizeof(app->in)};
	struct msghdr header = {
	    .msg_iov = &in, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
	ssize_t size;

	do
		size = recvmsg(app->fd, &header, MSG_CMSG_CLOEXEC);
	while (size < 0 && errno == EINTR);
	if (size < 0)
		return -errno;
	baton_files_take(files, &header);
	return header.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ? -EBADMSG : size;
}

static const char *baton_field(struct json_object *object, const char *key)
{
	struct json_object *value;
	const char *text = json_object_object_get_ex(object, key, &value) ? json_object_get_string(value) : NULL;

	return text ? text : "";
}

static enum baton_app_type baton_type(const char *word)
{
	static const struct {
		const char *word;
		enum baton_app_type type;
	} types[] = {
	    {"registered", BATON_APP_REGISTERED}, {"offer", BATON_APP_OFFER},       {"arrived", BATON_APP_ARRIVED},
	    {"canceled", BATON_APP_CANCELED},     {"error", BATON_APP_ERROR},       {"given", BATON_APP_GIVEN},
	    {"rejected", BATON_APP_REJECTED},     {"ended", BATON_APP_ENDED},       {"message", BATON_APP_MESSAGE},
	    {"connection", BATON_APP_CONNECTION}, {"accepted", BATON_APP_ACCEPTED},
	};

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		if (!strcmp(word, types[i].word))
			return types[i].type;
	}
	return BATON_APP_OTHER;
}

// baton_state_read reads a memfd that its sender cannot change any more.
static int baton_state_read(struct baton_app_message *message, int fd)
{
	int seals = fcntl(fd, F_GET_SEALS); // -1: it can have none
	struct stat about;
	ssize_t size;

	if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &about) || about.st_size > BATON_APP_STATE_MAX)
		return -EBADMSG;
	message->octets = malloc(about.st_size + 1);
	if (!message->octets)
		return -ENOMEM;
	size = pread(fd, message->octets, about.st_size, 0);
	if (size != about.st_size)
		return -EBADMSG;
	message->state = message->octets;
	message->state_size = size;
	return 0;
}

// baton_digit is what a character of base64 stands for (RFC 4648, section 4); -1: nothing.
static int baton_digit(char c)
{
	const char *found = c ? strchr(digits, c) : NULL;

	return found ? (int)(found - digits) : -1;
}

// baton_decode reads octets that are in the message itself, in base64.
static int baton_decode(struct baton_app_message *message, const char *text, size_t *size)
{
	uint32_t bits = 0;
	int have = 0;

	*size = 0;

	message->octets = malloc(strlen(text) + 1);
	if (!message->octets)
		return -ENOMEM;
	for (; *text && *text != '='; text++) {
		int digit = baton_digit(*text);

		if (digit < 0)
			return -EBADMSG;
		bits = bits << 6 | (uint32_t)digit;
		have += 6;
		if (have >= 8) {
			have -= 8;
			message->octets[(*size)++] = (uint8_t)(bits >> have);
		}
	}
	return 0;
}

// baton_file_take takes the file descriptor of that name out of those beside a message; -1: there is none.
static int baton_file_take(struct json_object *object, struct baton_files *files, const char *wanted)
{
	struct json_object *names;

	if (!json_object_object_get_ex(object, "files", &names) || !json_object_is_type(names, json_type_array))
		return -1;
	for (size_t i = 0; i < files->count; i++) {
		const char *name = json_object_get_string(json_object_array_get_idx(names, i));

		if (name && !strcmp(name, wanted)) {
			int file = files->fds[i];

			files->fds[i] = -1;
			return file;
		}
	}
	return -1;
}

// baton_state finds the state of a message, beside it or in it.
static int baton_state(struct baton_app_message *message, struct json_object *object, struct baton_files *files)
{
	int error, memfd = baton_file_take(object, files, "state");

	if (memfd >= 0) {
		error = baton_state_read(message, memfd);
		close(memfd);
		return error;
	}
	error = baton_decode(message, baton_field(object, "state"), &message->state_size);
	message->state = message->octets;
	return error;
}

// baton_data reads what another application says.
static int baton_data(struct baton_app_message *message, struct json_object *object)
{
	int error = baton_decode(message, baton_field(object, "data"), &message->data_size);

	message->data = message->octets;
	return error;
}

static uint64_t baton_number(struct json_object *object, const char *key)
{
	struct json_object *value;

	return json_object_object_get_ex(object, key, &value) ? json_object_get_uint64(value) : 0;
}

static struct baton_app_party baton_party(struct json_object *object)
{
	return (struct baton_app_party){
	    .host = baton_field(object, "host"),
	    .role = baton_field(object, "role"),
	    .name = baton_field(object, "name"),
	    .job = baton_field(object, "job"),
	    .id = baton_number(object, "id"),
	};
}

static int baton_message(struct baton_app_message *message, struct json_object *object, struct baton_files *files)
{
	message->type = baton_type(baton_field(object, "type"));
	message->seq = baton_number(object, "seq");
	message->transfer = baton_number(object, "transfer");
	message->conn = baton_number(object, "conn");
	message->connection = baton_file_take(object, files, "connection");
	message->client = baton_field(object, "client");
	message->service = baton_field(object, "service");
	message->job = baton_field(object, "job");
	message->host = baton_field(object, "host");
	message->by = baton_field(object, "by");
	message->code = baton_field(object, "code");
	message->detail = baton_field(object, "detail");
	message->tag = baton_field(object, "tag");
	message->from = baton_party(json_object_object_get(object, "from"));
	if (message->type == BATON_APP_MESSAGE)
		return baton_data(message, object);
	return baton_state(message, object, files);
}

// baton_parse reads a packet as JSON.
static struct json_object *baton_parse(const char *text, size_t size)
{
	struct json_tokener *tokener = json_tokener_new();
	struct json_object *object;

	if (!tokener)
		return NULL;
	object = json_tokener_parse_ex(tokener, text, (int)size);
	json_tokener_free(tokener);
	if (object && !json_object_is_type(object, json_type_object)) {
		json_object_put(object);
		object = NULL;
	}
	return object;
}

int baton_app_receive(struct baton_app *app, struct baton_app_message *message)
{
	struct baton_files files = {.count = 0};
	ssize_t size = baton_packet_receive(app, &files);
	int error = size < 0 ? (int)size : 0;

	*message = (struct baton_app_message){.connection = -1};
	if (size > 0) {
		message->json = baton_parse(app->in, size);
		error = message->json ? baton_message(message, message->json, &files) : -EBADMSG;
	}
	baton_files_close(&files);
	if (error)
		baton_app_message_release(message);
	return error;
}

void baton_app_message_release(struct baton_app_message *message)
{
	json_object_put(message->json);
	free(message->octets);
	if (message->connection >= 0)
		close(message->connection);
	*message = (struct baton_app_message){.connection = -1};
}
