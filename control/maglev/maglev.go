package maglev

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Size is the usual size of a table: a prime, and at least 100 places for each of 655 backends, so that their shares
// differ by at most 1 % (section 3.4). Section 5.3 measures with 65537 and 655373.
const Size = 65537

// Backend is what gets a share of a table.
type Backend struct {
	Name   string // tells it apart, and decides which places it prefers
	Weight int    // of its share, relative to the others'; at least 1
}

// ErrBackends marks backends that no table can be made of.
var ErrBackends = errors.New("backends of a Maglev table")

// Table fills a table of so many places: each has the index of a backend. Without backends it is nil. size must be prime
// and at least the number of backends; a size of 100 places for each backend gives fair shares.
//
// It takes about size * ln(size) steps: for Size and 3 to 1000 backends some ms.
func Table(size int, backends []Backend) ([]uint16, error) {
	if err := check(size, backends); err != nil || len(backends) == 0 {
		return nil, err
	}
	p := permutations(size, backends)
	table := make([]uint16, size)
	taken := make([]bool, size)
	for filled := 0; ; {
		for i := range p {
			if !p[i].turn() {
				continue
			}
			at := p[i].prefers(taken)
			table[at], taken[at] = p[i].backend, true
			if filled++; filled == size {
				return table, nil
			}
		}
	}
}

func check(size int, backends []Backend) error {
	if size < 2 || len(backends) > size || len(backends) > 1<<16 {
		return fmt.Errorf("%w: %d for %d places", ErrBackends, len(backends), size)
	}
	names := make(map[string]bool, len(backends))
	for _, b := range backends {
		if b.Weight < 1 || names[b.Name] {
			return fmt.Errorf("%w: %q has weight %d, or is there twice", ErrBackends, b.Name, b.Weight)
		}
		names[b.Name] = true
	}
	return nil
}

// permutation is the order in which a backend prefers the places: offset, offset + skip, offset + 2 skip, ..., modulo the
// table's size; that is prime, so all places are met.
type permutation struct {
	backend    uint16
	next, skip int
	weight     int
	heaviest   int
	credit     int
}

// permutations are in the order of turns, by name: it must not depend on how the caller counts.
func permutations(size int, backends []Backend) []permutation {
	heaviest := 0
	for _, b := range backends {
		heaviest = max(heaviest, b.Weight)
	}
	p := make([]permutation, len(backends))
	for i, b := range backends {
		h := sha256.Sum256([]byte(b.Name)) // its parts are as good as the paper's two hash functions
		p[i] = permutation{
			backend: uint16(i), weight: b.Weight, heaviest: heaviest,
			next: int(binary.BigEndian.Uint64(h[:]) % uint64(size)),
			skip: int(binary.BigEndian.Uint64(h[8:])%uint64(size-1)) + 1,
		}
	}
	slices.SortFunc(p, func(a, b permutation) int { return cmp.Compare(backends[a.backend].Name, backends[b.backend].Name) })
	return p
}

// turn says whether it is the backend's turn in this round: the heaviest has one in each, the others in proportion ("by
// altering the relative frequency of the backends' turns").
func (p *permutation) turn() bool {
	p.credit += p.weight
	if p.credit < p.heaviest {
		return false
	}
	p.credit -= p.heaviest
	return true
}

// prefers takes the next place in the backend's order that is free.
func (p *permutation) prefers(taken []bool) int {
	for taken[p.next] {
		p.step(len(taken))
	}
	at := p.next
	p.step(len(taken))
	return at
}

func (p *permutation) step(size int) {
	if p.next += p.skip; p.next >= size {
		p.next -= size
	}
}
