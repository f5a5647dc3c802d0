package judge

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"slices"

	"baton/fastpath/seq"
)

// history is how many octets of a stream are kept at least to compare retransmissions with, octets. It exceeds the
// largest receive buffer of a Linux host by default (net.ipv4.tcp_rmem, 6 MiB), so any octet still in flight is there.
const history = 8 << 20

var (
	errChanged   = errors.New("repeated octets differ")
	errTooOld    = errors.New("octets repeated that are too old to compare")
	errBeforeISN = errors.New("octets before the first one")
)

// Digest describes a whole stream.
type Digest struct {
	Octets int64
	SHA256 [sha256.Size]byte
}

// DigestOf returns the digest of p.
func DigestOf(p []byte) *Digest {
	return &Digest{Octets: int64(len(p)), SHA256: sha256.Sum256(p)}
}

// String prints length and the digest's first octets.
func (d Digest) String() string {
	return fmt.Sprintf("%d octets, sha256 %x...", d.Octets, d.SHA256[:6])
}

// stream reassembles one direction of a connection without keeping it.
type stream struct {
	next   seq.Value // of the first octet not hashed yet
	octets int64     // hashed so far
	sum    hash.Hash
	tail   []byte  // the last octets hashed, at least min(octets, history) of them
	ahead  []chunk // received out of order, by sequence number
}

// chunk is a piece of a stream that cannot be hashed yet.
type chunk struct {
	at   seq.Value
	data []byte
}

func newStream(first seq.Value) stream { return stream{next: first, sum: sha256.New()} }

// add takes in the octets p, the first of which has number at.
func (s *stream) add(at seq.Value, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if at.After(s.next) {
		s.ahead = append(s.ahead, chunk{at, bytes.Clone(p)})
		slices.SortStableFunc(s.ahead, func(a, b chunk) int { return a.at.Sub(b.at) })
		return nil
	}
	if err := s.merge(at, p); err != nil {
		return err
	}
	for len(s.ahead) > 0 && !s.ahead[0].at.After(s.next) {
		c := s.ahead[0]
		s.ahead = s.ahead[1:]
		if err := s.merge(c.at, c.data); err != nil {
			return err
		}
	}
	return nil
}

// merge compares the part of p that is known and hashes the rest. at is not after next.
func (s *stream) merge(at seq.Value, p []byte) error {
	old := s.next.Sub(at)
	switch {
	case int64(old) > s.octets:
		return errBeforeISN
	case old > len(s.tail):
		return errTooOld
	}
	known := s.tail[len(s.tail)-old:]
	n := min(len(p), old)
	if !bytes.Equal(known[:n], p[:n]) {
		return errChanged
	}
	s.append(p[n:])
	return nil
}

func (s *stream) append(p []byte) {
	s.sum.Write(p)
	s.octets += int64(len(p))
	s.next = s.next.Add(len(p))
	s.tail = append(s.tail, p...)
	if len(s.tail) >= 2*history {
		s.tail = append(s.tail[:0], s.tail[len(s.tail)-history:]...)
	}
}

// hole returns the number of octets missing before the first chunk that waits; 0 if none waits.
func (s *stream) hole() int {
	if len(s.ahead) == 0 {
		return 0
	}
	return s.ahead[0].at.Sub(s.next)
}

func (s *stream) digest() Digest {
	d := Digest{Octets: s.octets}
	s.sum.Sum(d.SHA256[:0])
	return d
}
