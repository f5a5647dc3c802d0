// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// Headers on the wire, and the connections that are in the middle of a dialogue: what guard and
// lockstep share.
#pragma once

enum {
	ETH_P_IP = 0x0800,
	ETH_P_IPV6 = 0x86DD,
	IPPROTO_TCP = 6,
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

struct tcp_ports_flags {
	__be16 source;
	__be16 dest;
	__be32 seq;
	__be32 ack_seq;
	__u8 doff;
	__u8 flags;
};

// struct baton_flow names a connection. An IPv4 address is the last word, the others are zero.
struct baton_flow {
	__be32 client_be[4];
	__be32 service_be[4];
	__be16 client_port_be;
	__be16 service_port_be;
};

// struct baton_play: a server is being told what it has missed. Until it is open, all that the server
// sends goes to the agent, and nothing that comes for it passes. Then those of its segments go to the
// client which neither repeat what the client has nor acknowledge less than the client was told.
struct baton_play {
	__u32 open;
	__u32 seq; // the client's next octet
	__u32 ack;
	__u32 tap; // interface index of the agent's TAP; without an agent there is none, and segments end there
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct baton_flow);
	__type(value, struct baton_play);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} plays SEC(".maps");
