// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Headers on the wire, and the name of a connection: what guard, lockstep and move share.
#pragma once

enum {
	ETH_P_IP = 0x0800,
	ETH_P_IPV6 = 0x86DD,
	IPPROTO_TCP = 6,
	IP_FRAGMENT = 0x3fff, // more fragments, or an offset
};

struct ethhdr {
	__u8 h_dest[6];
	__u8 h_source[6];
	__be16 h_proto;
};

struct iphdr {
	__u8 version_ihl;
	__u8 tos;
	__be16 tot_len;
	__be16 id;
	__be16 frag_off; // flags 3 bits, offset 13
	__u8 ttl;
	__u8 protocol;
	__u16 check;
	__be32 saddr;
	__be32 daddr;
};

struct ipv6hdr {
	__u8 version_class_flow[4];
	__be16 payload_len;
	__u8 nexthdr;
	__u8 hop_limit;
	__be32 saddr[4];
	__be32 daddr[4];
};

// struct tcphdr is the header without checksum and urgent pointer.
struct tcphdr {
	__be16 source;
	__be16 dest;
	__be32 seq;
	__be32 ack_seq;
	__u8 doff; // upper 4 bits, in 32-bit words
	__u8 flags;
	__be16 window;
};

// struct baton_flow names a connection. An IPv4 address is the last word, the others are zero.
struct baton_flow {
	__be32 client_be[4];
	__be32 service_be[4];
	__be16 client_port_be;
	__be16 service_port_be;
};

// struct baton_ends is between whom a TCP segment goes, with addresses as in struct baton_flow, and where it is in the
// packet.
struct baton_ends {
	__be32 source_be[4], destination_be[4];
	__u32 tcp_offset;
	__u32 end; // of the IP packet by its header
};

// baton_ends_find fills e, which must be zero. Returns -1 for what is no TCP segment as a whole, or is behind extension
// headers: a peer has to ask for those, and none does.
static __always_inline int baton_ends_find(struct __sk_buff *skb, struct baton_ends *e)
{
	const __u32 network = sizeof(struct ethhdr);
	struct ipv6hdr ip6;
	struct iphdr ip;

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, network, &ip, sizeof(ip)) || ip.protocol != IPPROTO_TCP ||
		    ip.frag_off & bpf_htons(IP_FRAGMENT))
			return -1;
		e->source_be[3] = ip.saddr;
		e->destination_be[3] = ip.daddr;
		e->tcp_offset = network + (ip.version_ihl & 0xf) * 4;
		e->end = network + bpf_ntohs(ip.tot_len);
		return 0;
	}
	if (skb->protocol != bpf_htons(ETH_P_IPV6) || bpf_skb_load_bytes(skb, network, &ip6, sizeof(ip6)) ||
	    ip6.nexthdr != IPPROTO_TCP)
		return -1;
	__builtin_memcpy(e->source_be, ip6.saddr, sizeof(ip6.saddr));
	__builtin_memcpy(e->destination_be, ip6.daddr, sizeof(ip6.daddr));
	e->tcp_offset = network + sizeof(ip6);
	e->end = e->tcp_offset + bpf_ntohs(ip6.payload_len);
	return 0;
}
