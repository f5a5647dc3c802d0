/* clang-format off */
//go:build ignore
/* clang-format on */

// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// trunk: the tags of frames to and from a host, at its switch's port. The port's device inserts a
// tag into the frame, or takes it off, only if its VLAN offloads are off.
#include "kernel.h"

enum {
	ETH_P_8021Q = 0x8100,
	VLAN_ID = 0xfff,
	TAGGED = 0x7a6, // mark of a frame that was here before
};

volatile const __u16 vlan, other_vlan;

__u64 sent;    // frames to the host, each of them three times
__u64 tagged;  // frames of the host with its tag
__u64 strange; // others

// again sends a copy by the same port: it comes by here and passes.
static __always_inline long again(struct __sk_buff *skb)
{
	return bpf_clone_redirect(skb, skb->ifindex, 0);
}

SEC("tcx/egress")
int to_host(struct __sk_buff *skb)
{
	if (skb->mark == TAGGED)
		return TCX_NEXT;
	skb->mark = TAGGED;
	if (again(skb) || bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), other_vlan) || again(skb) ||
	    bpf_skb_vlan_pop(skb) || bpf_skb_vlan_push(skb, bpf_htons(ETH_P_8021Q), vlan))
		return TCX_DROP;
	__sync_fetch_and_add(&sent, 1);
	return TCX_NEXT;
}

SEC("tcx/ingress")
int from_host(struct __sk_buff *skb)
{
	if (!skb->vlan_present || (skb->vlan_tci & VLAN_ID) != vlan || bpf_skb_vlan_pop(skb)) {
		__sync_fetch_and_add(&strange, 1);
		return TCX_DROP;
	}
	__sync_fetch_and_add(&tagged, 1);
	return TCX_NEXT;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
