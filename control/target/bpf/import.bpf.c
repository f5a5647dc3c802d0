/* clang-format off */
//go:build ignore
/* clang-format on */

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// import: makes the connection that a frame describes. It sits on the ingress of a TAP which only
// the agent can write to, so the frame needs no proof of its origin, and the program does not even
// parse it: what the agent asks for is in `request`, what came of it is in `result`. There is one
// of each, because the agent writes one frame at a time.
#include "kernel.h"

// enum baton_kind says what the next frame is.
enum baton_kind {
	BATON_KIND_PASS = 0,   // an ordinary segment for the stack: the RST that ends a leftover
	BATON_KIND_IMPORT = 1, // the first segment of a connection that is to be created
};

// enum baton_status says what happened to the last import.
enum baton_status {
	BATON_STATUS_PENDING = 0,     // set by the agent: the program has not run
	BATON_STATUS_ASSIGNED = 1,    // the stack got the frame and the request to create the connection from it
	BATON_STATUS_LEFTOVER = 2,    // a socket of the tuple exists: state, rcv_nxt
	BATON_STATUS_NO_LISTENER = 3, // nobody listens there
	BATON_STATUS_BACKLOG = 4,     // the listener's accept queue is full
	BATON_STATUS_REFUSED = 5,     // the kernel refused: error
};

// struct baton_request: what the agent asks for. Addresses and ports are in network byte order;
// IPv4 addresses are the first word.
struct baton_request {
	enum baton_kind kind;
	__u32 ipv6; // else IPv4
	__be32 client_be[4];
	__be32 service_be[4];
	__be32 listener_be[4]; // where to look for the listener
	__be16 client_port_be;
	__be16 service_port_be;
	__be16 listener_port_be;
	__u16 mss;
	__u32 tsval; // the client's newest
	__u32 tsecr; // the first TSval that the new socket sends is this, and it counts on in
		     // milliseconds
	__u8 rcv_wscale;
	__u8 snd_wscale;
	__u8 wscale_ok;
	__u8 sack_ok;
	__u8 tstamp_ok;
	__u8 pad[3];
};

// struct baton_result: what came of it.
struct baton_result {
	enum baton_status status;
	__s32 error;   // negative errno of the kernel
	__u32 state;   // TCP state of a leftover
	__u32 rcv_nxt; // the only sequence number with which an RST ends it (RFC 5961 section 3.2)
};

// struct bpf_tcp_req_attrs: net/core/filter.c, kernel commit e472f88891ab.
struct bpf_tcp_req_attrs {
	__u32 rcv_tsval;
	__u32 rcv_tsecr;
	__u16 mss;
	__u8 rcv_wscale;
	__u8 snd_wscale;
	__u8 ecn_ok;
	__u8 wscale_ok;
	__u8 sack_ok;
	__u8 tstamp_ok;
	__u8 usec_ts_ok;
	__u8 reserved[3];
};

extern int bpf_sk_assign_tcp_reqsk(struct __sk_buff *s, struct sock *sk, struct bpf_tcp_req_attrs *attrs,
				   int attrs__sz) __ksym;

struct baton_request request;
struct baton_result result;

// baton_lookup finds who a segment from the client to address:port belongs to. The caller releases
// it.
static __always_inline struct bpf_sock *baton_lookup(struct __sk_buff *skb, const __be32 *address_be, __be16 port_be,
						     __be16 client_port_be)
{
	struct bpf_sock_tuple tuple = {};

	if (request.ipv6) {
		__builtin_memcpy(tuple.ipv6.saddr, request.client_be, sizeof(tuple.ipv6.saddr));
		__builtin_memcpy(tuple.ipv6.daddr, address_be, sizeof(tuple.ipv6.daddr));
		tuple.ipv6.sport = client_port_be;
		tuple.ipv6.dport = port_be;
		return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	tuple.ipv4.saddr = request.client_be[0];
	tuple.ipv4.daddr = address_be[0];
	tuple.ipv4.sport = client_port_be;
	tuple.ipv4.dport = port_be;
	return bpf_skc_lookup_tcp(skb, &tuple, sizeof(tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
}

// baton_rcv_nxt is what a socket that is no listener expects next.
static __always_inline __u32 baton_rcv_nxt(struct bpf_sock *found)
{
	struct tcp_timewait_sock *waiting;
	struct tcp_request_sock *embryo;
	struct tcp_sock *full;

	full = bpf_skc_to_tcp_sock(found);
	if (full)
		return full->rcv_nxt;
	waiting = bpf_skc_to_tcp_timewait_sock(found);
	if (waiting)
		return waiting->tw_sk.__tw_common.skc_tw_rcv_nxt;
	embryo = bpf_skc_to_tcp_request_sock(found);
	return embryo ? embryo->rcv_nxt : 0;
}

// baton_leftover reports a socket that already has the tuple. Returns 1 if there is one.
static __always_inline int baton_leftover(struct __sk_buff *skb)
{
	struct bpf_sock *found = baton_lookup(skb, request.service_be, request.service_port_be, request.client_port_be);
	int leftover = 0;

	if (!found)
		return 0;
	if (found->state != TCP_LISTEN) {
		result.state = found->state;
		result.rcv_nxt = baton_rcv_nxt(found);
		result.status = BATON_STATUS_LEFTOVER;
		leftover = 1;
	}
	bpf_sk_release(found);
	return leftover;
}

// baton_assign has the stack create the connection on this listener. Returns a baton_status.
static __always_inline enum baton_status baton_assign(struct __sk_buff *skb, struct bpf_sock *found)
{
	struct bpf_tcp_req_attrs attrs = {
	    .rcv_tsval = request.tsval,
	    .rcv_tsecr = request.tsecr,
	    .mss = request.mss,
	    .rcv_wscale = request.rcv_wscale,
	    .snd_wscale = request.snd_wscale,
	    .wscale_ok = request.wscale_ok,
	    .sack_ok = request.sack_ok,
	    .tstamp_ok = request.tstamp_ok,
	};
	struct tcp_sock *listener = bpf_skc_to_tcp_sock(found);
	struct sock *sk;

	if (!listener)
		return BATON_STATUS_NO_LISTENER;
	sk = &listener->inet_conn.icsk_inet.sk;
	// sk_acceptq_is_full(): the stack would drop the frame without a word.
	if (sk->sk_ack_backlog > sk->sk_max_ack_backlog)
		return BATON_STATUS_BACKLOG;
	result.error = bpf_sk_assign_tcp_reqsk(skb, (struct sock *)listener, &attrs, sizeof(attrs));
	return result.error ? BATON_STATUS_REFUSED : BATON_STATUS_ASSIGNED;
}

// baton_create finds the listener and hands it the connection. Returns a baton_status.
static __always_inline enum baton_status baton_create(struct __sk_buff *skb, __be16 client_port_be)
{
	struct bpf_sock *found = baton_lookup(skb, request.listener_be, request.listener_port_be, client_port_be);
	enum baton_status status = BATON_STATUS_NO_LISTENER;

	if (!found)
		return status;
	if (found->state == TCP_LISTEN)
		status = baton_assign(skb, found);
	bpf_sk_release(found);
	return status;
}

SEC("tc")
int baton_import(struct __sk_buff *skb)
{
	if (request.kind == BATON_KIND_PASS)
		return TCX_NEXT;
	if (baton_leftover(skb))
		return TCX_DROP;
	result.status = baton_create(skb, request.client_port_be);
	// The client may have a direct connection from the same port to a listener elsewhere, which
	// hides that listener.
	if (result.status == BATON_STATUS_NO_LISTENER)
		result.status = baton_create(skb, 0);
	return result.status == BATON_STATUS_ASSIGNED ? TCX_NEXT : TCX_DROP;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
