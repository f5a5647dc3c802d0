package main

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
)

// fate is what chance has in store for connections.
type fate struct {
	seed uint64
	rate float64 // share of the offers that an application rejects
}

// of is the chance that is about a connection's part in something.
func (f fate) of(client netip.AddrPort, part string) *rand.Rand {
	h := fnv.New64a()
	fmt.Fprint(h, client, part)
	return rand.New(rand.NewPCG(f.seed, h.Sum64()))
}

// rejects reports whether the application on a target rejects a connection.
func (f fate) rejects(client netip.AddrPort, target string) bool {
	return f.of(client, target).Float64() < f.rate
}

// taker returns which of the targets, asked in that order, takes a connection, "" if none does, and how many reject it.
func (f fate) taker(client netip.AddrPort, order []string) (target string, rejections int) {
	for i, name := range order {
		if !f.rejects(client, name) {
			return name, i
		}
	}
	return "", len(order)
}

// most is the longest padding of a request, octets; with it the head still fits into a window.
const most = 6000

// request is what a client says.
type request struct {
	octets      []byte
	split       int  // octets in its first write
	clientFirst bool // the client closes first, having the whole response
}

// requestOf makes up the request of a client.
func (f fate) requestOf(client netip.AddrPort) request {
	r := f.of(client, "request")
	var head bytes.Buffer
	fmt.Fprintf(&head, "GET /%x HTTP/1.1\r\nHost: a.example\r\nX-Padding: ", r.Uint64())
	for range r.IntN(most) {
		head.WriteByte(byte('a' + r.IntN(26)))
	}
	q := request{clientFirst: r.IntN(2) == 0}
	if !q.clientFirst {
		head.WriteString("\r\nConnection: close")
	}
	head.WriteString("\r\n\r\n")
	q.octets = head.Bytes()
	q.split = len(q.octets)
	if r.IntN(2) == 0 {
		q.split = 1 + r.IntN(len(q.octets)-1)
	}
	return q
}

// response is what the application on a target answers: the request.
func response(target string, request []byte) []byte {
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nX-Target: %s\r\nContent-Length: %d\r\n\r\n", target, len(request))
	return append([]byte(head), request...)
}

// refusal is what a client is told whom nobody takes.
const refusal = "HTTP/1.1 503 Service Unavailable\r\nServer: baton\r\nContent-Type: text/plain\r\nContent-Length: 39\r\n" +
	"Cache-Control: no-store\r\nConnection: close\r\n\r\nNo server can take the connection now.\n"
