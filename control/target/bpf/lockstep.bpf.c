/* clang-format off */
//go:build ignore
/* clang-format on */

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// lockstep: on the interfaces that lead to clients, takes away what a server says that speaks first
// and is told what it has missed: the client has heard that from the routing host. The agent gets
// it by its TAP and acknowledges it. Pinned, so that an agent's end lets none of it out.
#include "kernel.h"

#include "packet.h"

// baton_ipv4 fills in the addresses of a packet that this host sends. Returns where TCP begins, or -1.
static __always_inline int baton_ipv4(struct __sk_buff *skb, struct baton_flow *flow)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip)) || ip.protocol != IPPROTO_TCP)
		return -1;
	flow->service_be[3] = ip.saddr;
	flow->client_be[3] = ip.daddr;
	return sizeof(struct ethhdr) + (ip.version_ihl & 0xf) * 4;
}

// baton_ipv6 is baton_ipv4 for IPv6. A server has to ask for extension headers, and none does.
static __always_inline int baton_ipv6(struct __sk_buff *skb, struct baton_flow *flow)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(skb, sizeof(struct ethhdr), &ip, sizeof(ip)) || ip.nexthdr != IPPROTO_TCP)
		return -1;
	__builtin_memcpy(flow->service_be, ip.saddr, sizeof(ip.saddr));
	__builtin_memcpy(flow->client_be, ip.daddr, sizeof(ip.daddr));
	return sizeof(struct ethhdr) + sizeof(ip);
}

static __always_inline int baton_addresses(struct __sk_buff *skb, struct baton_flow *flow)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return baton_ipv4(skb, flow);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return baton_ipv6(skb, flow);
	return -1;
}

// baton_before compares sequence numbers (RFC 9293 section 3.4).
static __always_inline int baton_before(__u32 a, __u32 b)
{
	return (__s32)(a - b) < 0;
}

SEC("tc")
int baton_lockstep(struct __sk_buff *skb)
{
	struct baton_flow flow = {};
	struct tcp_ports_flags tcp;
	struct baton_play *play;
	int offset = baton_addresses(skb, &flow);

	if (offset < 0 || bpf_skb_load_bytes(skb, offset, &tcp, sizeof(tcp)))
		return TCX_NEXT;
	flow.service_port_be = tcp.source;
	flow.client_port_be = tcp.dest;
	play = bpf_map_lookup_elem(&plays, &flow);
	if (!play)
		return TCX_NEXT;
	if (play->open && !baton_before(bpf_ntohl(tcp.seq), play->seq) &&
	    !baton_before(bpf_ntohl(tcp.ack_seq), play->ack))
		return TCX_NEXT;
	return bpf_redirect(play->tap, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
