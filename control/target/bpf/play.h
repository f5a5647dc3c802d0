// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// The connections that are in the middle of a dialogue: what guard and lockstep share.
#pragma once

#include "packet.h"

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
