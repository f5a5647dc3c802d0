/* clang-format off */
//go:build ignore
/* clang-format on */

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// move: follows HTTP/1.1 connections that were handed over, and takes the FIN with which the server closes one that is
// idle and kept alive: the connection goes back to its routing host instead, and the client sees nothing. Nobody is to
// miss a FIN that means something, so it is taken only if the program knows for certain that both streams stand between
// two messages: it follows the framing of requests (in) and responses (out) by their heads. Whatever it cannot follow
// makes the FIN pass, as does any other doubt; each is counted by its reason.
//
// Only the client's acknowledgment of the last response can be waited for: a server with a short timeout closes before
// it comes. The FIN is dropped, and to the kernel, which learns of it, it is not sent: it tries again when the
// acknowledgment has come. Until then nothing with data passes to the socket, which would answer with an RST. Whoever
// has waited for WAIT_NS closes as ever.
//
// From the FIN that was taken until the agent lets go, neither direction of the flow passes. The window that the server
// announces is cut to what the flow's next owner can promise; sequence numbers are never changed.
//
// The programs are attached only while there is an agent, so a connection that nobody looks after ends as ever.
#include "kernel.h"

#include "packet.h"

enum {
	TCP_FLAG_FIN = 0x01,
	TCP_FLAG_SYN = 0x02,
	TCP_FLAG_RST = 0x04,
	TCP_FLAG_ACK = 0x10,
	TCP_WINDOW = 14, // offsets in the header
	TCP_CHECK = 16,
	SHUTDOWN_BOTH = 3, // sock.sk_shutdown: the application has closed
	HEAD_MAX = 4096,   // octets of a head; a power of two
	HEAD_MASK = HEAD_MAX - 1,
	HEAD_MIN = 16,       // "GET / HTTP/1.1" has not even that
	CHUNK_LINE_MAX = 32, // octets of a chunk's size, extensions included
	UNITS_MAX = 256,     // heads and chunks in one segment, which may be of 64 KiB
	BODY_MAX = 1 << 30,  // octets: sequence numbers are compared within 2^31
};

// WAIT_NS: time for the server to repeat a response whose acknowledgment got lost, twice.
#define WAIT_NS 2000000000ull

// enum baton_close: what became of a FIN, and of the packets of a flow whose FIN was taken.
enum baton_close {
	BATON_CLOSE_TAKEN = 0,     // the flow goes back to its routing host
	BATON_CLOSE_DATA = 1,      // passed: it has data
	BATON_CLOSE_SAID = 2,      // passed: one of the two had said that the connection closes, or is no HTTP/1.1
	BATON_CLOSE_FRAMING = 3,   // passed: the messages could not be followed
	BATON_CLOSE_RESPONSE = 4,  // passed: within a response, or before the first
	BATON_CLOSE_REQUEST = 5,   // passed: a request has come that is not answered
	BATON_CLOSE_UNACKED = 6,   // passed: the client has not acknowledged all for long
	BATON_CLOSE_CLIENT = 7,    // passed: the client has closed, or the application only its half
	BATON_CLOSE_WINDOW = 8,    // passed: the client was promised more than a next owner can keep
	BATON_CLOSE_FULL = 9,      // passed: the agent does not keep up
	BATON_CLOSE_HELD_OUT = 10, // dropped: from a flow whose FIN was taken
	BATON_CLOSE_HELD_IN = 11,  // dropped: for such a flow; the client repeats it
	BATON_CLOSE_WAITS = 12,    // dropped: a FIN before the client has acknowledged all; the kernel repeats it
	BATON_CLOSES = 13,
};

// enum baton_phase of a flow. The programs and the agent change it, each by baton_change from the one that it knows.
enum baton_phase {
	BATON_PHASE_OPEN = 0,
	BATON_PHASE_TAKEN = 1, // its FIN was
	BATON_PHASE_LEFT = 2,  // a FIN has passed, or will
	BATON_PHASE_WAITS = 3, // for the client's acknowledgment: then its FIN is decided about
};

// struct baton_stream: how far the messages of one direction were followed.
struct baton_stream {
	__u32 next;  // sequence number of what is read next: a head, or a chunk's size
	__u32 begin; // of the newest message
	__u32 count; // messages begun; of responses the final ones
	__u32 in_chunks;
};

// struct baton_move is what is known of a flow. The agent makes it before the connection exists.
struct baton_move {
	enum baton_phase phase;
	__u32 lost;     // the framing could not be followed
	__u32 closes;   // a head has said that the connection ends after its message
	__u32 bodiless; // the newest request is HEAD
	__u32 window;   // that the next owner can promise, octets
	__u32 scale;    // of windows that the server announces
	__u32 acked;    // highest ACK that the client was sent
	__u32 edge;     // highest right edge
	__u32 tsecr;    // frozen: what the last segment that was dropped echoes
	struct baton_stream request, response;
	__u64 since; // when the FIN began to wait, ns of the monotonic clock
};

// struct baton_change is the agent's wish to change a flow's phase.
struct baton_change {
	struct baton_flow flow;
	enum baton_phase from, to;
};

// struct baton_taken is a FIN that was taken: with what the agent knows, the whole state of the connection.
struct baton_taken {
	struct baton_flow flow;
	__u32 rcv_nxt;
	__u32 acked;
	__u32 edge;
	__u32 snd_nxt; // of the FIN: the client has all before
	__u32 snd_wnd;
	__u32 snd_wl1;
	__u32 tsval; // 0 without timestamps
	__u32 tsecr;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct baton_flow);
	__type(value, struct baton_move);
	__uint(max_entries, 1 << 20);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} moves SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} taken SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, enum baton_close);
	__type(value, __u64);
	__uint(max_entries, BATON_CLOSES);
} closes SEC(".maps");

enum baton_field {
	FIELD_FIRST = 0, // request line or status line
	FIELD_OTHER = 1,
	FIELD_LENGTH = 2,
	FIELD_CONNECTION = 3,
	FIELD_CODING = 4,
};

// struct baton_head is a head being read.
struct baton_head {
	__u32 line;    // where the line begins
	__u32 value;   // and its field's value
	__u32 field;   // enum baton_field
	__u32 end;     // behind the head; 0: not found
	__u32 version; // HTTP/1.1
	__u32 closes;
	__u32 has_length;
	__u32 length;
	__u32 chunked;
	__u32 bad; // not to be understood
	__u8 octets[HEAD_MAX];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct baton_head);
	__uint(max_entries, 2); // [0] in, [1] out: one may interrupt the other
} heads SEC(".maps");

// struct baton_segment is where things are in a packet.
struct baton_segment {
	struct baton_ends ends;
	struct tcphdr tcp;
	__u32 payload_offset;
	__u32 length; // of the payload
	__u32 seq, ack;
};

static __always_inline void baton_count(enum baton_close what)
{
	__u64 *counter = bpf_map_lookup_elem(&closes, &what);

	if (counter)
		(*counter)++;
}

static __always_inline int baton_drop(enum baton_close why)
{
	baton_count(why);
	return TCX_DROP;
}

// baton_change changes a flow's phase, unless somebody else has.
static __always_inline int baton_change(struct baton_move *m, enum baton_phase from, enum baton_phase to)
{
	return __sync_bool_compare_and_swap(&m->phase, from, to);
}

// baton_phase is the phase that a flow is in: who has waited for long closes as ever.
static __always_inline enum baton_phase baton_phase(struct baton_move *m)
{
	if (m->phase == BATON_PHASE_WAITS && bpf_ktime_get_ns() - m->since > WAIT_NS &&
	    baton_change(m, BATON_PHASE_WAITS, BATON_PHASE_LEFT))
		baton_count(BATON_CLOSE_UNACKED);
	return m->phase;
}

// baton_after compares sequence numbers (RFC 9293 section 3.4).
static __always_inline int baton_after(__u32 a, __u32 b)
{
	return (__s32)(a - b) > 0;
}

static __always_inline __u32 baton_later(__u32 a, __u32 b)
{
	return baton_after(a, b) ? a : b;
}

// baton_parse fills s, which must be zero. Returns -1 for what is followed by nobody.
static __always_inline int baton_parse(struct __sk_buff *skb, struct baton_segment *s)
{
	__u32 end;

	if (baton_ends_find(skb, &s->ends) || bpf_skb_load_bytes(skb, s->ends.tcp_offset, &s->tcp, sizeof(s->tcp)))
		return -1;
	s->payload_offset = s->ends.tcp_offset + (s->tcp.doff >> 4) * 4;
	end = s->ends.end;
	if (s->payload_offset > end) // more than 64 KiB, whose length is not in the header
		end = skb->len;
	s->length = end > s->payload_offset ? end - s->payload_offset : 0;
	s->seq = bpf_ntohl(s->tcp.seq);
	s->ack = bpf_ntohl(s->tcp.ack_seq);
	return 0;
}

// baton_find returns what is known of the flow of a segment that comes from or goes to its client.
static __always_inline struct baton_move *baton_find(const struct baton_segment *s, int from_client,
						     struct baton_flow *f)
{
	const __be32 *client = from_client ? s->ends.source_be : s->ends.destination_be;
	const __be32 *service = from_client ? s->ends.destination_be : s->ends.source_be;

	__builtin_memcpy(f->client_be, client, sizeof(f->client_be));
	__builtin_memcpy(f->service_be, service, sizeof(f->service_be));
	f->client_port_be = from_client ? s->tcp.source : s->tcp.dest;
	f->service_port_be = from_client ? s->tcp.dest : s->tcp.source;
	return bpf_map_lookup_elem(&moves, f);
}

// baton_is compares octets of a head with a name in lower case.
static __always_inline int baton_is(const struct baton_head *h, __u32 at, const char *name, __u32 n)
{
#pragma unroll
	for (__u32 i = 0; i < n; i++)
		if ((h->octets[(at + i) & HEAD_MASK] | 0x20) != name[i])
			return 0;
	return 1;
}

#define BATON_IS(head, at, name) baton_is(head, at, name, sizeof(name) - 1)

// baton_name looks which field begins a line.
static __always_inline void baton_name(struct baton_head *h, __u32 at)
{
	h->field = FIELD_OTHER;
	if (BATON_IS(h, at, "content-length:")) {
		h->field = FIELD_LENGTH;
		h->value = at + sizeof("content-length:") - 1;
		h->bad |= h->has_length;
		h->has_length = 1;
	} else if (BATON_IS(h, at, "connection:")) {
		h->field = FIELD_CONNECTION;
		h->value = at + sizeof("connection:") - 1;
	} else if (BATON_IS(h, at, "transfer-encoding:")) {
		h->field = FIELD_CODING;
		h->chunked = 1;
	}
}

// baton_value takes one octet of a field's value.
static __always_inline void baton_value(struct baton_head *h, __u32 at, __u8 c)
{
	__u8 before = h->octets[(at - 1) & HEAD_MASK];

	if (h->field == FIELD_LENGTH) {
		if (c >= '0' && c <= '9' && h->length < BODY_MAX / 10)
			h->length = h->length * 10 + (c - '0');
		else if (c != ' ' && c != '\t' && c != '\r')
			h->bad = 1;
	} else if (h->field == FIELD_CONNECTION) {
		// "close", and anything else that begins like it: then the FIN passes.
		if ((c | 0x20) == 'c' && (before == ':' || before == ' ' || before == ',' || before == '\t'))
			h->closes = 1;
	}
}

// struct baton_reading is the segment whose messages are being read.
struct baton_reading {
	struct __sk_buff *skb;
	struct baton_move *move;
	struct baton_stream *stream;
	struct baton_head *head;
	__u32 payload_offset, seq, end;
	__u32 response;
};

// baton_octet reads one octet of a head; a callback of bpf_loop.
static long baton_octet(__u32 i, struct baton_reading *r)
{
	struct baton_head *h = r->head;
	__u8 c;

	if (i >= HEAD_MAX)
		return 1;
	c = h->octets[i];
	if (c != '\n') {
		if (i == h->line && h->line)
			baton_name(h, i);
		else if (i >= h->value)
			baton_value(h, i, c);
		return 0;
	}
	if (!h->line) {
		h->version |= BATON_IS(h, i - 9, "http/1.1");
	} else if (i == h->line + 1) {
		h->end = i + 1;
		return 1;
	}
	h->line = i + 1;
	return 0;
}

// baton_load brings up to max octets from the stream's position on into the head. Returns how many, 0 if there are none.
static __always_inline __u32 baton_load(struct baton_reading *r, __u32 max)
{
	__u32 at = r->stream->next - r->seq;
	__u64 n = (__u32)(r->end - r->stream->next);

	asm volatile("" : "+r"(n)); // else the compiler compares one copy and passes another
	if (n > max)
		n = max;
	if (n < 1 || n > HEAD_MAX || bpf_skb_load_bytes(r->skb, r->payload_offset + at, r->head->octets, n))
		return 0;
	return n;
}

// baton_chunk passes over a chunk (RFC 9112 section 7.1). Returns -1 if it cannot.
static __always_inline int baton_chunk(struct baton_reading *r)
{
	struct baton_head *h = r->head;
	__u32 n = baton_load(r, CHUNK_LINE_MAX), size = 0, i;
	int extension = 0;

	for (i = 0; i < CHUNK_LINE_MAX; i++) {
		__u8 c = h->octets[i], low = c | 0x20;

		if (i >= n || size >= BODY_MAX / 16)
			return -1;
		if (c == '\n')
			break;
		if (extension || c == '\r')
			continue;
		if (c >= '0' && c <= '9')
			size = size << 4 | (c - '0');
		else if (low >= 'a' && low <= 'f')
			size = size << 4 | (low - 'a' + 10);
		else if (c == ';')
			extension = 1;
		else
			return -1;
	}
	if (i < 2 || i >= CHUNK_LINE_MAX)
		return -1;
	if (size) {
		r->stream->next += i + 1 + size + 2;
		return 0;
	}
	// The last one; trailers are not followed.
	if (i + 2 >= n || h->octets[(i + 1) & HEAD_MASK] != '\r' || h->octets[(i + 2) & HEAD_MASK] != '\n')
		return -1;
	r->stream->next += i + 3;
	r->stream->in_chunks = 0;
	return 0;
}

// baton_read_head reads the head at the stream's position. Returns -1 if it is not to be understood.
static __always_inline int baton_read_head(struct baton_reading *r)
{
	struct baton_head *h = r->head;
	__u32 n;

	__builtin_memset(h, 0, __builtin_offsetof(struct baton_head, octets));
	h->value = HEAD_MAX;
	n = baton_load(r, HEAD_MAX);
	if (n < HEAD_MIN)
		return -1;
	bpf_loop(n, baton_octet, r, 0);
	return h->end && !h->bad ? 0 : -1;
}

// baton_request takes in a request's head.
static __always_inline int baton_request(struct baton_reading *r)
{
	struct baton_move *m = r->move;
	__u32 is_head = BATON_IS(r->head, 0, "head ");

	// Which response has no body must be clear.
	if (m->request.count != m->response.count && (is_head || m->bodiless))
		return -1;
	if (BATON_IS(r->head, 0, "connect "))
		return -1;
	m->bodiless = is_head;
	m->request.count++;
	return 0;
}

// baton_response takes in a response's head, and says whether it has a body (RFC 9112 section 6.3).
static __always_inline int baton_response(struct baton_reading *r)
{
	struct baton_move *m = r->move;
	struct baton_head *h = r->head;
	__u8 a = h->octets[9], b = h->octets[10], c = h->octets[11];
	int interim = a == '1',
	    bodiless = interim || (a == '2' && b == '0' && c == '4') || (a == '3' && b == '0' && c == '4');

	if (interim && c == '1') // 101: another protocol from here on
		return -1;
	if (!interim) {
		m->response.count++;
		bodiless |= m->bodiless;
	}
	if (m->response.count > m->request.count)
		return -1;
	if (bodiless) {
		h->chunked = 0;
		h->length = 0;
	} else if (!h->chunked && !h->has_length) {
		h->closes = 1; // the end of the connection is the end of the body
	}
	return 0;
}

// baton_message reads the head at the stream's position and passes over the body. Returns -1 if it cannot.
static __always_inline int baton_message(struct baton_reading *r)
{
	struct baton_stream *s = r->stream;
	struct baton_head *h = r->head;

	if (baton_read_head(r))
		return -1;
	if (r->response)
		h->version = BATON_IS(h, 0, "http/1.1 ");
	if (h->chunked && h->has_length)
		return -1;
	if (r->response ? baton_response(r) : baton_request(r))
		return -1;
	if (h->closes || !h->version)
		r->move->closes = 1;
	s->begin = s->next;
	s->in_chunks = h->chunked;
	s->next += h->end + h->length;
	return 0;
}

// baton_unit reads the next head or chunk; a callback of bpf_loop.
static long baton_unit(__u32 i __attribute__((unused)), struct baton_reading *r)
{
	if (!baton_after(r->end, r->stream->next))
		return 1;
	if (baton_after(r->seq, r->stream->next) || (r->stream->in_chunks ? baton_chunk(r) : baton_message(r))) {
		r->move->lost = 1;
		return 1;
	}
	return 0;
}

// baton_follow reads the messages of a segment. What was followed before, and bodies, it passes over. After a gap, and
// when the connection will close anyway, it is no use.
static __always_inline void baton_follow(struct __sk_buff *skb, struct baton_move *m, const struct baton_segment *s,
					 __u32 response)
{
	struct baton_reading r = {
	    .skb = skb,
	    .move = m,
	    .stream = response ? &m->response : &m->request,
	    .head = bpf_map_lookup_elem(&heads, &response),
	    .payload_offset = s->payload_offset,
	    .seq = s->seq,
	    .end = s->seq + s->length,
	    .response = response,
	};

	if (!s->length || m->lost || m->closes || !r.head || !baton_after(r.end, r.stream->next))
		return;
	bpf_loop(UNITS_MAX, baton_unit, &r, 0);
	if (baton_after(r.end, r.stream->next))
		m->lost = 1;
}

// baton_window cuts the window that a segment announces to what the next owner can promise, and notes what the client
// is promised.
static __always_inline void baton_window(struct __sk_buff *skb, struct baton_move *m, struct baton_segment *s)
{
	__u32 window = bpf_ntohs(s->tcp.window), most = m->window >> (m->scale & 31);
	__be16 cut;

	if (window > most) {
		cut = bpf_htons(most);
		bpf_l4_csum_replace(skb, s->ends.tcp_offset + TCP_CHECK, s->tcp.window, cut, sizeof(cut));
		bpf_skb_store_bytes(skb, s->ends.tcp_offset + TCP_WINDOW, &cut, sizeof(cut), 0);
		window = most;
	}
	m->acked = baton_later(m->acked, s->ack);
	m->edge = baton_later(m->edge, s->ack + (window << (m->scale & 31)));
}

// baton_received says up to where a flow's requests were received, if all of them are answered. That may be less than
// what was followed: a segment that was seen arriving, and not received yet. Returns -1 if a request is under way.
static __always_inline int baton_received(const struct baton_move *m, const struct baton_segment *s)
{
	const struct baton_stream *q = &m->request;

	if (s->ack == q->next && !q->in_chunks && q->count == m->response.count)
		return 0;
	return s->ack == q->begin && q->count == m->response.count + 1 ? 0 : -1;
}

// baton_doubt says why a FIN has to pass, by what was followed; BATON_CLOSE_TAKEN: it need not.
static __always_inline enum baton_close baton_doubt(const struct baton_move *m, const struct baton_segment *s)
{
	if (s->length)
		return BATON_CLOSE_DATA;
	if (m->closes)
		return BATON_CLOSE_SAID;
	if (m->lost)
		return BATON_CLOSE_FRAMING;
	if (!m->response.count || m->response.in_chunks || s->seq != m->response.next)
		return BATON_CLOSE_RESPONSE;
	if (baton_received(m, s))
		return BATON_CLOSE_REQUEST;
	if (baton_after(m->edge, s->ack + m->window))
		return BATON_CLOSE_WINDOW;
	return BATON_CLOSE_TAKEN;
}

// baton_timestamps reads the option where Linux has it. Without one they are 0.
static __attribute__((noinline)) void baton_timestamps(struct __sk_buff *skb, const struct baton_segment *s,
						       struct baton_taken *t)
{
	__be32 option[3];

	t->tsval = t->tsecr = 0;
	if (s->payload_offset < s->ends.tcp_offset + 20 + sizeof(option) ||
	    bpf_skb_load_bytes(skb, s->ends.tcp_offset + 20, option, sizeof(option)) ||
	    option[0] != bpf_htonl(0x0101080a))
		return;
	t->tsval = bpf_ntohl(option[1]);
	t->tsecr = bpf_ntohl(option[2]);
}

// baton_wait has a FIN wait. What it returns drops it.
static __always_inline enum baton_close baton_wait(struct baton_move *m, enum baton_phase phase)
{
	if (phase == BATON_PHASE_OPEN) {
		m->since = bpf_ktime_get_ns();
		if (!baton_change(m, BATON_PHASE_OPEN, BATON_PHASE_WAITS))
			return BATON_CLOSE_HELD_OUT;
	}
	return BATON_CLOSE_WAITS;
}

// baton_take decides about a FIN, and tells the agent if it is taken.
static __always_inline enum baton_close baton_take(struct __sk_buff *skb, struct baton_move *m,
						   const struct baton_segment *s, const struct baton_flow *f,
						   enum baton_phase phase)
{
	enum baton_close doubt = baton_doubt(m, s);
	struct tcp_sock *socket;
	struct baton_taken *t;
	struct sock *sk;

	if (doubt != BATON_CLOSE_TAKEN)
		return doubt;
	socket = skb->sk ? bpf_skc_to_tcp_sock(skb->sk) : 0;
	if (!socket)
		return BATON_CLOSE_CLIENT;
	sk = &socket->inet_conn.icsk_inet.sk;
	if (sk->__sk_common.skc_state != TCP_FIN_WAIT1 || sk->sk_shutdown != SHUTDOWN_BOTH)
		return BATON_CLOSE_CLIENT;
	if (socket->snd_una != s->seq)
		return baton_wait(m, phase);
	t = bpf_ringbuf_reserve(&taken, sizeof(*t), 0);
	if (!t)
		return BATON_CLOSE_FULL;
	t->flow = *f;
	t->rcv_nxt = s->ack;
	t->acked = m->acked;
	t->edge = m->edge;
	t->snd_nxt = s->seq;
	t->snd_wnd = socket->snd_wnd;
	t->snd_wl1 = socket->snd_wl1;
	baton_timestamps(skb, s, t);
	if (!baton_change(m, phase, BATON_PHASE_TAKEN)) {
		bpf_ringbuf_discard(t, 0);
		return BATON_CLOSE_HELD_OUT;
	}
	bpf_ringbuf_submit(t, 0);
	return BATON_CLOSE_TAKEN;
}

// baton_fin lets a FIN pass, or drops it. It waits for nothing else any more if it passes.
static __always_inline int baton_fin(struct __sk_buff *skb, struct baton_move *m, const struct baton_segment *s,
				     const struct baton_flow *f, enum baton_phase phase)
{
	enum baton_close what = baton_take(skb, m, s, f, phase);

	if (what == BATON_CLOSE_TAKEN || what == BATON_CLOSE_WAITS || what == BATON_CLOSE_HELD_OUT)
		return baton_drop(what);
	if (!baton_change(m, phase, BATON_PHASE_LEFT))
		return baton_drop(BATON_CLOSE_HELD_OUT);
	baton_count(what);
	return TCX_NEXT;
}

SEC("tc")
int baton_move_out(struct __sk_buff *skb)
{
	struct baton_segment s = {};
	struct baton_taken t = {};
	struct baton_flow f = {};
	enum baton_phase phase;
	struct baton_move *m;

	if (baton_parse(skb, &s))
		return TCX_NEXT;
	m = baton_find(&s, 0, &f);
	if (!m)
		return TCX_NEXT;
	phase = baton_phase(m);
	if (phase == BATON_PHASE_LEFT)
		return TCX_NEXT;
	if (phase == BATON_PHASE_TAKEN) {
		baton_timestamps(skb, &s, &t);
		m->tsecr = t.tsecr;
		return baton_drop(BATON_CLOSE_HELD_OUT);
	}
	if (s.tcp.flags & (TCP_FLAG_SYN | TCP_FLAG_RST) || !(s.tcp.flags & TCP_FLAG_ACK))
		return TCX_NEXT;
	if (s.tcp.flags & TCP_FLAG_FIN)
		return baton_fin(skb, m, &s, &f, phase);
	baton_window(skb, m, &s);
	baton_follow(skb, m, &s, 1);
	return TCX_NEXT;
}

// baton_move_in follows what comes from the client, behind the guard. Nothing passes to a flow whose FIN was taken, and
// only acknowledgments to one whose FIN waits for them.
SEC("tc")
int baton_move_in(struct __sk_buff *skb)
{
	struct baton_segment s = {};
	struct baton_flow f = {};
	enum baton_phase phase;
	struct baton_move *m;

	if (baton_parse(skb, &s))
		return TCX_NEXT;
	m = baton_find(&s, 1, &f);
	if (!m)
		return TCX_NEXT;
	phase = baton_phase(m);
	if (phase == BATON_PHASE_LEFT)
		return TCX_NEXT;
	if (phase == BATON_PHASE_TAKEN || (phase == BATON_PHASE_WAITS && s.length))
		return baton_drop(BATON_CLOSE_HELD_IN);
	baton_follow(skb, m, &s, 0);
	return TCX_NEXT;
}

// baton_move_import follows what the import brings, and lets all pass: also the RST that ends a flow's socket.
SEC("tc")
int baton_move_import(struct __sk_buff *skb)
{
	struct baton_segment s = {};
	struct baton_flow f = {};
	struct baton_move *m;

	if (baton_parse(skb, &s))
		return TCX_NEXT;
	m = baton_find(&s, 1, &f);
	if (m && m->phase == BATON_PHASE_OPEN)
		baton_follow(skb, m, &s, 0);
	return TCX_NEXT;
}

// baton_move_change changes a flow's phase for the agent, which cannot do so in one step. Returns whether it did.
SEC("syscall")
int baton_move_change(struct baton_change *wish)
{
	struct baton_flow f = wish->flow;
	struct baton_move *m = bpf_map_lookup_elem(&moves, &f);

	return m && baton_change(m, wish->from, wish->to);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
