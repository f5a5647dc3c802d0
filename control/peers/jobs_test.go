package peers

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"testing"
	"time"

	"baton/bench/faults"
)

const (
	some = 300_000 // octets: long enough for every kind of recovery
	lots = 2_000_000
)

// jobs are the conversations that every peer has.
var jobs = []job{
	{name: "download", down: lots},
	{name: "upload", up: lots},
	{name: "both ways, moved", up: lots, down: lots, migrate: 7},
	{name: "nothing but closing"},
	{name: "half-close", up: some, down: some, after: true, migrate: 20},
	{name: "half-close, lossy", up: some, down: some, after: true, faults: faults.Rates{Lose: 3}, migrate: 20},
	{name: "slow server", up: some, down: 1000, slow: 3 * time.Second, migrate: 5},
	{name: "lazy client", down: lots, lazy: 4 * time.Second, migrate: 5},
	{name: "MSS 536", up: some, down: some, mtu: 576, migrate: 20},
	{name: "MSS 536, lossy", up: some, down: some, mtu: 576, faults: faults.Rates{Lose: 3}, migrate: 20},
	{name: "MSS 88", up: some / 4, down: some / 4, mss: 88, migrate: 20},
	{name: "loss 1 %", up: some, down: some, faults: faults.Rates{Lose: 1}},
	{name: "loss 1 %, moved", up: some, down: some, faults: faults.Rates{Lose: 1}, migrate: 3},
	{name: "loss 5 %", up: some, down: some, faults: faults.Rates{Lose: 5}},
	{name: "loss 5 %, moved", up: some, down: some, faults: faults.Rates{Lose: 5}, migrate: 3},
	{name: "reordering", up: some, down: some, faults: faults.Rates{Delay: 10}, migrate: 10},
	{name: "duplicates", up: some, down: some, faults: faults.Rates{Repeat: 10}, migrate: 10},
	{name: "damage", up: some, down: some, faults: faults.Rates{Damage: 2}, migrate: 10},
	{name: "everything", up: some, down: some, faults: faults.Rates{Lose: 2, Repeat: 3, Delay: 5, Damage: 1}, migrate: 10},
	{name: "wrap", up: some, down: some, wrap: true, migrate: 10},
	{name: "wrap, lossy", up: some, down: some, wrap: true, faults: faults.Rates{Lose: 2, Delay: 2, Repeat: 2}, migrate: 10},
	{name: "Nagle", up: some, down: some, nagle: true, faults: faults.Rates{Lose: 1}},
}

// patience is how long a job may take.
const patience = 90 * time.Second

// client is what a job needs of a peer's connection.
type client interface {
	io.ReadWriteCloser
	CloseWrite() error
	SetDeadline(time.Time) error
}

// peer is someone else's TCP.
type peer interface {
	frame(f []byte) // a frame for it; from any goroutine
	dial() (client, error)
}

// converse runs a job with a peer, which start makes: it is given where to send its frames to.
func converse(t *testing.T, j job, start func(t *testing.T, j job, out func([]byte)) peer) {
	var p peer
	toClient := faults.New(j.faults, 1, func(f []byte) { p.frame(f) })
	s := newServer(j, toClient)
	toServer := faults.New(j.faults, 2, s.deliver)
	p = start(t, j, toServer.Carry)
	served := make(chan error, 1)
	go func() { served <- s.run(patience) }()
	c, err := p.dial()
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() { wrote <- upload(c, j) }()
	time.Sleep(j.lazy)
	got := sha256.New()
	if n, err := io.Copy(got, c); err != nil || n != int64(j.down) {
		t.Errorf("client received %d of %d octets: %v", n, j.down, err)
	}
	if err := <-wrote; err != nil {
		t.Errorf("client writes: %v", err)
	}
	if err := <-served; err != nil {
		t.Fatalf("server: %v", err)
	}
	same(t, "download", got, j.down, 2)
	same(t, "upload", s.got, j.up, 1)
	if j.migrate > 0 && j.up+j.down > 0 && s.moves == 0 {
		t.Error("the connection was never given away")
	}
	happened := toClient.Count().Faults() + toServer.Count().Faults()
	if j.faults != (faults.Rates{}) && happened == 0 {
		t.Error("the link did nothing")
	}
	if j.lazy > 0 && s.shut == 0 || j.slow > 0 && s.closed == 0 {
		t.Errorf("the window was never shut: %d and %d times", s.shut, s.closed)
	}
	t.Logf("%d events, %d transfers, %d faults, %d damaged frames", s.events, s.moves, happened, s.damaged)
}

func upload(c client, j job) error {
	if _, err := c.Write(stream(j.up, 1)); err != nil && j.up > 0 {
		return err
	}
	if err := c.CloseWrite(); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// same compares what was received with what was sent.
func same(t *testing.T, what string, got hash.Hash, n int, seed uint64) {
	t.Helper()
	want := sha256.Sum256(stream(n, seed))
	if g := hex.EncodeToString(got.Sum(nil)); g != hex.EncodeToString(want[:]) {
		t.Errorf("%s: other octets were received than sent", what)
	}
}
