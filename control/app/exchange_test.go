package app

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const token = "0123456789abcdef"

// wire carries datagrams both ways between an application and a daemon, as a test wants it.
type wire struct {
	mu         sync.Mutex
	random     *rand.Rand
	lost       int // of 100 datagrams
	twice      int // of 100
	late       int // of 100
	cut        bool
	app        *Exchange
	daemon     *Exchange
	toDaemon   int // datagrams
	duplicates int // messages that came again
}

// connect makes both ends. It is for bubbles: time stands still while anybody has something to do.
func connect(w *wire) {
	w.daemon = NewExchange(func(b []byte, _ bool) { w.carry(b, func() *Exchange { return w.app }) }, "", "s", DefaultLease)
	w.app = NewExchange(func(b []byte, _ bool) {
		w.mu.Lock()
		w.toDaemon++
		w.mu.Unlock()
		w.carry(b, func() *Exchange { return w.daemon })
	}, token, "s", DefaultLease)
}

// carry loses, repeats and delays a datagram, by chance.
func (w *wire) carry(b []byte, to func() *Exchange) {
	w.mu.Lock()
	defer w.mu.Unlock()
	chance := func(percent int) bool { return w.random != nil && w.random.IntN(100) < percent }
	if w.cut || chance(w.lost) {
		return
	}
	times := 1
	if chance(w.twice) {
		times = 2
	}
	for range times {
		var delay time.Duration
		if chance(w.late) {
			delay = time.Duration(w.random.IntN(300)) * time.Millisecond
		}
		time.AfterFunc(delay, func() { w.bring(b, to()) })
	}
}

func (w *wire) bring(b []byte, to *Exchange) {
	d, err := ParseDatagram(b)
	if err != nil {
		panic(err) // what an Exchange sends can be read
	}
	if fresh := to.Take(d); !fresh && d.IsMessage() {
		w.mu.Lock()
		w.duplicates++
		w.mu.Unlock()
	}
}

// say sends numbered messages, and keep keeps the lease, while the others are heard.
func say(t *testing.T, x *Exchange, n int) {
	for i := range n {
		if err := x.Send(Message{Type: TypeAccept, Transfer: uint64(i + 1), State: bytes.Repeat([]byte("x"), i)}); err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
}

func heard(t *testing.T, who string, x *Exchange, n int) {
	for i := range n {
		m, _, err := x.Receive()
		if err != nil || m.Transfer != uint64(i+1) || len(m.State) != i {
			t.Errorf("%s: message %d is number %d with %d octets, %v", who, i+1, m.Transfer, len(m.State), err)
			return
		}
	}
}

// TestMessagesArriveOnceAndInOrder over a wire that loses, repeats and reorders datagrams, both ways at once.
func TestMessagesArriveOnceAndInOrder(t *testing.T) {
	for _, row := range []struct {
		name              string
		lost, twice, late int
	}{{"fine", 0, 0, 0}, {"lossy", 25, 0, 0}, {"repeating", 0, 50, 0}, {"reordering", 0, 30, 50}, {"all", 20, 20, 30}} {
		for seed := range uint64(5) {
			t.Run(fmt.Sprint(row.name, seed), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := &wire{random: rand.New(rand.NewPCG(seed, 1)), lost: row.lost, twice: row.twice, late: row.late}
					connect(w)
					var all sync.WaitGroup
					all.Go(func() { say(t, w.app, 100) })
					all.Go(func() { say(t, w.daemon, 100) })
					all.Go(func() { heard(t, "daemon", w.daemon, 100) })
					all.Go(func() { heard(t, "application", w.app, 100) })
					all.Wait()
					w.app.Close()
					w.daemon.Close()
					w.mu.Lock()
					defer w.mu.Unlock()
					if row.twice > 0 && w.duplicates == 0 {
						t.Error("no message came twice: the wire is too good")
					}
				})
			})
		}
	}
}

func TestRepetitionEndsWithTheExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{cut: true}
		connect(w)
		start := time.Now()
		err := w.app.Send(Message{Type: TypeRegister})
		if took := time.Since(start); !errors.Is(err, ErrLease) || took != DefaultLease {
			t.Errorf("after %s: %v", took, err)
		}
		if w.toDaemon < 10 || w.toDaemon > 40 {
			t.Errorf("sent %d times", w.toDaemon)
		}
		if _, _, err := w.daemon.Receive(); !errors.Is(err, ErrLease) {
			t.Errorf("daemon: %v", err)
		}
	})
}

// TestUnacknowledgedMessageEndsTheExchange although its peer is alive.
func TestUnacknowledgedMessageEndsTheExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := NewExchange(func([]byte, bool) {}, "", "s", 4*time.Second)
		go func() {
			for range 10 {
				time.Sleep(time.Second)
				x.Take(Datagram{Session: "s", Message: Message{Type: TypePing}})
			}
		}()
		start := time.Now()
		if err := x.Send(Message{Type: TypeOffer}); !errors.Is(err, ErrLease) || time.Since(start) != 4*time.Second {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
		time.Sleep(10 * time.Second)
	})
}

func TestLeaseIsTheDaemonsAndPingsRenewIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		connect(w)
		w.daemon.lease = 4 * time.Second
		go say(t, w.app, 1)
		heard(t, "daemon", w.daemon, 1)
		if err := w.daemon.Send(Message{Type: TypeRegistered}); err != nil {
			t.Fatal(err)
		}
		if m, _, err := w.app.Receive(); err != nil || m.Lease != 4000 {
			t.Fatalf("%+v, %v", m, err)
		}
		for range 10 {
			time.Sleep(3 * time.Second)
			w.app.ping()
		}
		if w.app.Ended() || w.daemon.Ended() {
			t.Fatal("it has ended although it was renewed")
		}
		synctest.Wait() // for the pong
		w.mu.Lock()
		w.cut = true
		w.mu.Unlock()
		time.Sleep(3900 * time.Millisecond)
		if w.app.Ended() || w.daemon.Ended() {
			t.Error("it has ended before its time")
		}
		time.Sleep(200 * time.Millisecond)
		if !w.app.Ended() || !w.daemon.Ended() {
			t.Error("it outlives its lease")
		}
	})
}

func TestApplicationDoesNotChooseItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		connect(w)
		w.daemon.Take(Datagram{Session: "s", Number: 1, Message: Message{Type: TypeRegistered, Lease: 1e9}})
		time.Sleep(DefaultLease + time.Second)
		if !w.daemon.Ended() {
			t.Error("it did")
		}
		w.app.Close()
	})
}

func TestClosingIsHeardAtOnceAfterAllMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		connect(w)
		say(t, w.app, 3)
		w.app.Close()
		heard(t, "daemon", w.daemon, 3)
		if _, _, err := w.daemon.Receive(); !errors.Is(err, io.EOF) {
			t.Errorf("daemon: %v", err)
		}
		if err := w.app.Send(Message{Type: TypeAccept}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("application: %v", err)
		}
	})
}

// TestUnreadMessagesAreNotAcknowledged, but come again once there is room.
func TestUnreadMessagesAreNotAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		connect(w)
		go say(t, w.app, maxUnread+10)
		time.Sleep(2 * time.Second)
		if n := len(w.daemon.in); n != maxUnread {
			t.Errorf("%d wait", n)
		}
		heard(t, "daemon", w.daemon, maxUnread+10)
		synctest.Wait()
		w.app.Close()
		w.daemon.Close()
	})
}

func TestWhatDoesNotFitIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		connect(w)
		for _, row := range []struct {
			m    Message
			want error
		}{
			{Message{Type: TypeGive, Files: []string{FileConnection}}, ErrMalformed},
			{Message{Type: TypeTransfer, State: make([]byte, MaxInline+1)}, ErrTooLarge},
			{Message{Type: TypeReject, Detail: strings.Repeat("x", MaxDatagram)}, ErrTooLarge},
		} {
			if err := w.app.Send(row.m); !errors.Is(err, row.want) {
				t.Errorf("%s: %v", row.m.Type, err)
			}
		}
		if w.toDaemon != 0 {
			t.Errorf("%d datagrams were sent", w.toDaemon)
		}
		if err := w.app.Send(Message{Type: TypeTransfer, State: make([]byte, MaxInline)}); err != nil {
			t.Error(err)
		}
		w.app.Close()
		w.daemon.Close()
	})
}

// TestFilesOverUDPAreRefusedOnce: such a message is acknowledged, so it does not come again.
func TestFilesOverUDPAreRefusedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{}
		connect(w)
		w.daemon.Take(Datagram{Session: "s", Number: 1, Message: Message{Type: TypeGive, Files: []string{"connection"}}})
		if _, _, err := w.daemon.Receive(); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "Unix socket") {
			t.Error(err)
		}
		w.daemon.Take(Datagram{Session: "s", Number: 2, Message: Message{Type: TypeAccept, Transfer: 1}})
		heard(t, "daemon", w.daemon, 1)
		w.app.Close()
		w.daemon.Close()
	})
}
