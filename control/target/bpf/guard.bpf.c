/* clang-format off */
//go:build ignore
/* clang-format on */

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// guard: the doorkeeper on the interfaces at which clients' packets arrive. A service here has no
// connections but those that were handed over, so whatever would start one (a SYN) or would make
// the stack answer with a RST (a segment that finds a listener or nobody) is dropped. A direct
// service, whose clients' SYNs are forwarded to it, takes connections itself: there a SYN that finds
// a listener passes, and so does the ACK of a SYN cookie. Packets for a
// service that come through a tunnel (IPIP, GUE) are taken out of it first. Of a packet that comes in
// fragments only the first one can be judged; the others follow it. It needs no agent: program, maps
// and link are pinned.
#include "kernel.h"

#include "play.h"

enum {
	IPPROTO_HOPOPTS = 0,
	IPPROTO_IPIP = 4,
	IPPROTO_UDP = 17,
	IPPROTO_IPV6 = 41,
	IPPROTO_ROUTING = 43,
	IPPROTO_FRAGMENT = 44,
	IPPROTO_DSTOPTS = 60,
	TCP_FLAG_SYN = 0x02,
	TCP_FLAG_ACK = 0x10,
	TCP_HEADER = 20,           // octets, without options
	EXTENSION_HEADERS_MAX = 4, // as many as a routing host follows
	IP_OFFSET = 0x1fff,
	IPV6_FRAGMENT = 0xfff9, // the same of a fragment header
	IPV6_OFFSET = 0xfff8,
	GUE_PORT = 6080,
	GUE_VERSION = 0xc0, // mask of the first octet
	GUE_CONTROL = 0x20, // the same
	GUE_LENGTH = 0x1f,  // the same: 32-bit words of extensions
	ECN_MASK = 3,       // RFC 3168 section 5
	ECN_CE = 3,
};

// enum baton_counter: what the guard did with a TCP packet for a DVIPA; and with a tunnelled packet
// before that.
enum baton_counter {
	BATON_COUNTER_PASSED = 0,        // belongs to a connection, or may begin one
	BATON_COUNTER_SYN = 1,           // dropped: would start a connection that nobody routed
	BATON_COUNTER_LISTENER = 2,      // dropped: of no connection, would hit the listener
	BATON_COUNTER_NO_SOCKET = 3,     // dropped: of no connection, nobody listens
	BATON_COUNTER_FRAGMENT = 4,      // dropped: a fragment whose first one did not pass before it
	BATON_COUNTER_MALFORMED = 5,     // dropped: truncated, or more extension headers than we follow
	BATON_COUNTER_DECAPSULATED = 6,  // taken out of a tunnel; counted again as what it is
	BATON_COUNTER_TUNNEL_SOURCE = 7, // dropped: in a tunnel from somebody who may not
	BATON_COUNTER_TUNNEL_ECN = 8,    // dropped: marked on its way, and its sender does not know ECN
	BATON_COUNTER_PLAYED_TO = 9,     // dropped: its connection is being told what it has missed
	BATON_COUNTERS = 10,
};

// enum baton_mode: how connections come to a guarded service.
enum baton_mode {
	BATON_MODE_TRANSFERRED = 1, // they are handed over
	BATON_MODE_DIRECT = 2,      // by their SYN
};

// struct baton_service names a guarded service. IPv4 addresses are IPv4-mapped. Port 0: the address
// has services.
struct baton_service {
	__be32 address_be[4];
	__be16 port_be;
	__u16 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct baton_service);
	__type(value, enum baton_mode); // not read of port 0
	__uint(max_entries, 8192);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, enum baton_counter);
	__type(value, __u64);
	__uint(max_entries, BATON_COUNTERS);
} counters SEC(".maps");

// struct baton_address is an address of either family; IPv4 is IPv4-mapped.
struct baton_address {
	__be32 address_be[4];
};

// struct baton_fragments names a packet whose first fragment has passed.
struct baton_fragments {
	struct baton_address source, destination;
	__be32 id_be;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, struct baton_fragments);
	__type(value, __u64); // until when, ns of the monotonic clock
	__uint(max_entries, 1024);
} fragments SEC(".maps");

// FRAGMENT_NS: as routing hosts, because an identification comes again (RFC 4963).
#define FRAGMENT_NS 5000000000ull

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct baton_address);
	__type(value, __u32); // not read
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} tunnel_sources SEC(".maps");

struct udp_gue {
	__be16 source;
	__be16 dest;
	__be16 len;
	__u16 check;
	__u8 version_control_length;
	__u8 proto;
	__be16 flags;
};

// struct ipv6_extension: the first 8 octets of any of them; the last two members are the fragment
// header's.
struct ipv6_extension {
	__u8 next;
	__u8 length; // in 8 octets, the first 8 not counted; none in a fragment header
	__be16 frag_off;
	__be32 id;
};

// struct baton_packet: where things are, once found.
struct baton_packet {
	struct baton_service service;
	struct bpf_sock_tuple tuple;
	__u32 tuple_size;
	__u32 tcp_offset;
	__u32 protocol;
	__u32 fragment; // it is one
	__u32 later;    // and not the first
	__u32 too_deep;
	struct baton_fragments whole; // of which it is one
};

static __always_inline void baton_count(enum baton_counter what)
{
	__u64 *counter = bpf_map_lookup_elem(&counters, &what);

	if (counter)
		(*counter)++;
}

static __always_inline int baton_drop(enum baton_counter reason)
{
	baton_count(reason);
	return TCX_DROP;
}

static __always_inline int baton_pass(void)
{
	baton_count(BATON_COUNTER_PASSED);
	return TCX_NEXT;
}

// baton_parse_ipv4 fills p. Returns -1 if the packet is too short to be of interest to anybody.
static __always_inline int baton_parse_ipv4(struct __sk_buff *skb, struct baton_packet *p)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip)))
		return -1;
	p->protocol = ip.protocol;
	p->fragment = (ip.frag_off & bpf_htons(IP_FRAGMENT)) != 0;
	p->later = (ip.frag_off & bpf_htons(IP_OFFSET)) != 0;
	p->whole.id_be = ip.id;
	p->whole.source.address_be[3] = ip.saddr;
	p->whole.destination.address_be[3] = ip.daddr;
	p->tcp_offset = sizeof(struct ethhdr) + (ip.version_ihl & 0xf) * 4;
	p->service.address_be[2] = bpf_htonl(0xffff);
	p->service.address_be[3] = ip.daddr;
	p->tuple.ipv4.saddr = ip.saddr;
	p->tuple.ipv4.daddr = ip.daddr;
	p->tuple_size = sizeof(p->tuple.ipv4);
	return 0;
}

// baton_skip_extensions follows IPv6 extension headers (RFC 8200 section 4) to the transport
// header.
static __always_inline void baton_skip_extensions(struct __sk_buff *skb, struct baton_packet *p)
{
	for (int i = 0; i <= EXTENSION_HEADERS_MAX; i++) {
		struct ipv6_extension header;
		__u8 kind = p->protocol;

		if (kind != IPPROTO_FRAGMENT && kind != IPPROTO_HOPOPTS && kind != IPPROTO_ROUTING &&
		    kind != IPPROTO_DSTOPTS)
			return;
		if (i == EXTENSION_HEADERS_MAX || bpf_skb_load_bytes(skb, p->tcp_offset, &header, sizeof(header)))
			break;
		p->tcp_offset += kind == IPPROTO_FRAGMENT ? 8 : (header.length + 1) * 8;
		p->protocol = header.next;
		if (kind != IPPROTO_FRAGMENT || !(header.frag_off & bpf_htons(IPV6_FRAGMENT)))
			continue; // also a fragment header that makes no fragment (RFC 6946)
		p->fragment = 1;
		p->later = (header.frag_off & bpf_htons(IPV6_OFFSET)) != 0;
		p->whole.id_be = header.id;
		if (p->later)
			return;
	}
	p->too_deep = 1;
}

// baton_parse_ipv6 is baton_parse_ipv4 for IPv6.
static __always_inline int baton_parse_ipv6(struct __sk_buff *skb, struct baton_packet *p)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip)))
		return -1;
	p->protocol = ip.nexthdr;
	p->tcp_offset = sizeof(struct ethhdr) + sizeof(ip);
	baton_skip_extensions(skb, p);
	__builtin_memcpy(p->service.address_be, ip.daddr, sizeof(ip.daddr));
	__builtin_memcpy(p->whole.source.address_be, ip.saddr, sizeof(ip.saddr));
	__builtin_memcpy(p->whole.destination.address_be, ip.daddr, sizeof(ip.daddr));
	__builtin_memcpy(p->tuple.ipv6.saddr, ip.saddr, sizeof(ip.saddr));
	__builtin_memcpy(p->tuple.ipv6.daddr, ip.daddr, sizeof(ip.daddr));
	p->tuple_size = sizeof(p->tuple.ipv6);
	return 0;
}

static __always_inline int baton_parse(struct __sk_buff *skb, struct baton_packet *p)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return baton_parse_ipv4(skb, p);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return baton_parse_ipv6(skb, p);
	return -1;
}

// baton_cookie says whether the segment answers a SYN cookie of the listener, which keeps nothing
// of such a connection.
static __always_inline int baton_cookie(struct __sk_buff *skb, const struct baton_packet *p, struct bpf_sock *listener)
{
	__u8 ip[sizeof(struct ipv6hdr)], tcp[TCP_HEADER];

	if (bpf_skb_load_bytes(skb, p->tcp_offset, tcp, sizeof(tcp)))
		return 0;
	if (p->tuple_size == sizeof(p->tuple.ipv4))
		return !bpf_skb_load_bytes(skb, sizeof(struct ethhdr), ip, sizeof(struct iphdr)) &&
		       !bpf_tcp_check_syncookie(listener, ip, sizeof(struct iphdr), (void *)tcp, sizeof(tcp));
	return !bpf_skb_load_bytes(skb, sizeof(struct ethhdr), ip, sizeof(struct ipv6hdr)) &&
	       !bpf_tcp_check_syncookie(listener, ip, sizeof(struct ipv6hdr), (void *)tcp, sizeof(tcp));
}

// baton_played_to says whether the segment's connection is not the client's yet.
static __always_inline int baton_played_to(const struct baton_packet *p, const struct tcphdr *tcp)
{
	struct baton_flow flow = {.client_port_be = tcp->source, .service_port_be = tcp->dest};
	struct baton_play *play;

	__builtin_memcpy(flow.client_be, p->whole.source.address_be, sizeof(flow.client_be));
	__builtin_memcpy(flow.service_be, p->whole.destination.address_be, sizeof(flow.service_be));
	play = bpf_map_lookup_elem(&plays, &flow);
	return play && !play->open;
}

// baton_judge decides by who the segment belongs to.
static __always_inline int baton_judge(struct __sk_buff *skb, struct baton_packet *p, enum baton_mode mode, int syn)
{
	struct bpf_sock *found;
	int listener, begins;

	// A constant size for the verifier.
	if (p->tuple_size == sizeof(p->tuple.ipv4))
		found = bpf_skc_lookup_tcp(skb, &p->tuple, sizeof(p->tuple.ipv4), BPF_F_CURRENT_NETNS, 0);
	else
		found = bpf_skc_lookup_tcp(skb, &p->tuple, sizeof(p->tuple.ipv6), BPF_F_CURRENT_NETNS, 0);
	if (!found)
		return baton_drop(BATON_COUNTER_NO_SOCKET);
	listener = found->state == TCP_LISTEN;
	begins = listener && mode == BATON_MODE_DIRECT && (syn || baton_cookie(skb, p, found));
	bpf_sk_release(found);
	return listener && !begins ? baton_drop(BATON_COUNTER_LISTENER) : baton_pass();
}

// baton_follow decides on a fragment that is not the first one.
static __always_inline int baton_follow(struct baton_packet *p)
{
	__u64 *until = bpf_map_lookup_elem(&fragments, &p->whole);

	return until && *until > bpf_ktime_get_ns() ? baton_pass() : baton_drop(BATON_COUNTER_FRAGMENT);
}

// baton_lead lets the fragments follow that come behind one that passes. The stack refuses those that
// overlap, so what it puts together has the header that was judged.
static __always_inline int baton_lead(struct baton_packet *p, int verdict)
{
	__u64 until = bpf_ktime_get_ns() + FRAGMENT_NS;

	if (p->fragment && verdict == TCX_NEXT)
		bpf_map_update_elem(&fragments, &p->whole, &until, BPF_ANY);
	return verdict;
}

// struct baton_tunnel: a packet with another one inside.
struct baton_tunnel {
	struct baton_address source;
	__u32 inner_offset; // of the inner IP header in the frame
	__u8 proto;         // of what is inside: IPPROTO_IPIP or IPPROTO_IPV6
	__u8 class;         // outer traffic class
	__u8 fragment;
};

// baton_tunnel_header reads the outer IP header. Extension headers are not looked behind: routing
// hosts send none.
static __always_inline int baton_tunnel_header(struct __sk_buff *skb, struct baton_tunnel *t)
{
	struct iphdr ip;
	struct ipv6hdr ip6;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip)))
			return -1;
		t->source.address_be[2] = bpf_htonl(0xffff);
		t->source.address_be[3] = ip.saddr;
		t->inner_offset = sizeof(struct ethhdr) + (ip.version_ihl & 0xf) * 4;
		t->proto = ip.protocol;
		t->class = ip.tos;
		t->fragment = (ip.frag_off & bpf_htons(0x3fff)) != 0;
		return 0;
	}
	if (skb->protocol != bpf_htons(ETH_P_IPV6) || bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &ip6, sizeof(ip6)))
		return -1;
	__builtin_memcpy(t->source.address_be, ip6.saddr, sizeof(ip6.saddr));
	t->inner_offset = sizeof(struct ethhdr) + sizeof(ip6);
	t->proto = ip6.nexthdr;
	t->class = ip6.version_class_flow[0] << 4 | ip6.version_class_flow[1] >> 4;
	return 0;
}

// baton_tunnel_gue goes on behind UDP and GUE headers (draft-ietf-intarea-gue, version 0), if they
// are that. GUE's control messages are none of ours.
static __always_inline int baton_tunnel_gue(struct __sk_buff *skb, struct baton_tunnel *t)
{
	struct udp_gue gue;

	if (t->proto != IPPROTO_UDP)
		return 0;
	if (bpf_skb_load_bytes(skb, t->inner_offset, &gue, sizeof(gue)) || gue.dest != bpf_htons(GUE_PORT) ||
	    gue.version_control_length & (GUE_VERSION | GUE_CONTROL))
		return -1;
	t->inner_offset += sizeof(gue) + (gue.version_control_length & GUE_LENGTH) * 4;
	t->proto = gue.proto;
	return 0;
}

// baton_tunnel_inner reads from the inner packet what decides: its destination, and its traffic class.
static __always_inline int baton_tunnel_inner(struct __sk_buff *skb, const struct baton_tunnel *t,
					      struct baton_service *to, __u8 *class)
{
	struct iphdr ip;
	struct ipv6hdr ip6;

	if (t->proto == IPPROTO_IPIP) {
		if (bpf_skb_load_bytes(skb, t->inner_offset, &ip, sizeof(ip)) || ip.version_ihl >> 4 != 4)
			return -1;
		to->address_be[2] = bpf_htonl(0xffff);
		to->address_be[3] = ip.daddr;
		*class = ip.tos;
		return 0;
	}
	if (t->proto != IPPROTO_IPV6 || bpf_skb_load_bytes(skb, t->inner_offset, &ip6, sizeof(ip6)) ||
	    ip6.version_class_flow[0] >> 4 != 6)
		return -1;
	__builtin_memcpy(to->address_be, ip6.daddr, sizeof(ip6.daddr));
	*class = ip6.version_class_flow[0] << 4 | ip6.version_class_flow[1] >> 4;
	return 0;
}

// baton_tunnel_open removes the outer headers. The inner packet goes on as if it had come alone.
static __always_inline int baton_tunnel_open(struct __sk_buff *skb, const struct baton_tunnel *t)
{
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO |
		      (t->proto == IPPROTO_IPIP ? BPF_F_ADJ_ROOM_DECAP_L3_IPV4 : BPF_F_ADJ_ROOM_DECAP_L3_IPV6);
	__be16 type = t->proto == IPPROTO_IPIP ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	__s32 outer = t->inner_offset - sizeof(struct ethhdr);

	if (bpf_skb_adjust_room(skb, -outer, BPF_ADJ_ROOM_MAC, flags))
		return -1;
	return bpf_skb_store_bytes(skb, __builtin_offsetof(struct ethhdr, h_proto), &type, sizeof(type), 0);
}

// baton_decapsulate takes a packet for one of our addresses out of its tunnel. Anything else passes
// as it is: tunnels to this host may have other purposes. Congestion on the way is passed on as in
// RFC 6040 section 4.2, but for a changed codepoint between ECT(0) and ECT(1), which says nothing.
static __always_inline int baton_decapsulate(struct __sk_buff *skb)
{
	struct baton_tunnel t = {};
	struct baton_service to = {};
	__u8 class;

	if (skb->pkt_type != PACKET_HOST || baton_tunnel_header(skb, &t) || baton_tunnel_gue(skb, &t) ||
	    baton_tunnel_inner(skb, &t, &to, &class))
		return TCX_NEXT;
	if (!bpf_map_lookup_elem(&services, &to))
		return TCX_NEXT;
	if (!bpf_map_lookup_elem(&tunnel_sources, &t.source))
		return baton_drop(BATON_COUNTER_TUNNEL_SOURCE);
	if (t.fragment)
		return baton_drop(BATON_COUNTER_FRAGMENT);
	if ((t.class & ECN_MASK) == ECN_CE && !(class & ECN_MASK))
		return baton_drop(BATON_COUNTER_TUNNEL_ECN);
	if (baton_tunnel_open(skb, &t))
		return baton_drop(BATON_COUNTER_MALFORMED);
	if ((t.class & ECN_MASK) == ECN_CE)
		bpf_skb_ecn_set_ce(skb);
	baton_count(BATON_COUNTER_DECAPSULATED);
	return TCX_NEXT;
}

SEC("tc")
int baton_guard(struct __sk_buff *skb)
{
	struct baton_packet p = {};
	struct tcphdr tcp;
	enum baton_mode *mode;
	int syn;

	if (baton_decapsulate(skb) == TCX_DROP)
		return TCX_DROP;
	if (baton_parse(skb, &p))
		return TCX_NEXT;
	if (p.protocol != IPPROTO_TCP && !p.too_deep)
		return TCX_NEXT;
	if (!bpf_map_lookup_elem(&services, &p.service))
		return TCX_NEXT; // not an address of ours
	if (p.later)
		return baton_follow(&p);
	if (p.too_deep || bpf_skb_load_bytes(skb, p.tcp_offset, &tcp, sizeof(tcp)))
		return baton_drop(BATON_COUNTER_MALFORMED);
	p.service.port_be = tcp.dest;
	mode = bpf_map_lookup_elem(&services, &p.service);
	if (!mode)
		return TCX_NEXT;
	if (baton_played_to(&p, &tcp))
		return baton_drop(BATON_COUNTER_PLAYED_TO);
	syn = (tcp.flags & (TCP_FLAG_SYN | TCP_FLAG_ACK)) == TCP_FLAG_SYN;
	if (syn && *mode != BATON_MODE_DIRECT)
		return baton_drop(BATON_COUNTER_SYN);
	if (p.tuple_size == sizeof(p.tuple.ipv4)) {
		p.tuple.ipv4.sport = tcp.source;
		p.tuple.ipv4.dport = tcp.dest;
	} else {
		p.tuple.ipv6.sport = tcp.source;
		p.tuple.ipv6.dport = tcp.dest;
	}
	return baton_lead(&p, baton_judge(skb, &p, *mode, syn));
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
