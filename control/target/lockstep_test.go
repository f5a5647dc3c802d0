package target

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"baton/control/transfer"
	"baton/fastpath/wire"
)

// The server of these tests greets, and answers line by line.
var (
	greeted = []transfer.Turn{{Last: "+OK"}}
	talked  = []transfer.Turn{
		{More: "220-", Last: "220 "},
		{Say: []byte("EHLO c.example\r\n"), More: "250-", Last: "250 "},
		{Say: []byte("MAIL FROM:<ada@a.example>\r\n"), More: "250-", Last: "250 "},
	}
)

// script is what a server says: first to itself, then to each line that it reads.
type script []string

var (
	pop3Script = script{"+OK Dovecot ready.\r\n"}
	smtpScript = script{"220-mail.example\r\n220 at your service\r\n", "250-mail.example\r\n250-SIZE\r\n250 8BITMIME\r\n",
		"250 2.1.0 Ok\r\n"}
)

// serveScript has a server with a script at ln. Each connection ends up in the channel, when all was said, or it was cut off,
// in the order in which they were accepted.
func serveScript(ln net.Listener, s func(connection int) script) chan spoken {
	ended, inOrder := make(chan spoken, 10), make(chan chan spoken, 10)
	go func() {
		defer close(inOrder)
		for i := 0; ; i++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			one := make(chan spoken, 1)
			inOrder <- one
			go func() { one <- speak(c, s(i)) }()
		}
	}()
	go func() {
		for one := range inOrder {
			ended <- <-one
		}
	}()
	return ended
}

// spoken is a connection after the script.
type spoken struct {
	net.Conn
	from *bufio.Reader
	err  error
}

func speak(c net.Conn, s script) spoken {
	out := spoken{Conn: c, from: bufio.NewReader(c)}
	c.SetDeadline(time.Now().Add(answerTimeout))
	for i, line := range s {
		if i > 0 {
			if _, out.err = out.from.ReadString('\n'); out.err != nil {
				return out
			}
		}
		// In two pieces: how answers are cut must not matter.
		half := len(line) / 2
		if _, out.err = io.WriteString(c, line[:half]); out.err != nil {
			return out
		}
		if _, out.err = io.WriteString(c, line[half:]); out.err != nil {
			return out
		}
	}
	return out
}

// stage is a lab with a Lockstep.
type stage struct {
	*lab
	*Lockstep
	t   *testing.T
	dir string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	l := newLab(t)
	s := &stage{lab: l, t: t, dir: newPinDir(t)}
	s.Lockstep = s.open()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// kill has a Lockstep end without a word to anybody, as an agent's death does.
func (s *stage) kill() {
	s.t.Helper()
	l := s.Lockstep
	unix.Close(l.stop[1])
	l.stop[1] = -1
	l.reader.Wait()
	if err := errors.Join(l.importer.tap.Close(), l.release()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) open() *Lockstep {
	s.t.Helper()
	l, err := OpenLockstep(s.Namespace, s.dir, s.lab.importer(s.t))
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

// offer is one of the connection that r describes, after a dialogue.
func offer(t testing.TB, r *transfer.Record, id transfer.ID, turns []transfer.Turn) *transfer.Offer {
	t.Helper()
	preview := *r
	preview.Data, preview.RcvNxt, preview.RcvAcked = nil, r.ReadFrom, r.ReadFrom
	b, err := preview.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return &transfer.Offer{Transfer: id, Inc: r.Inc, Job: r.Job, Dialogue: transfer.Dialogue{Record: b, Turns: turns}}
}

func (s *stage) play(r *transfer.Record, id transfer.ID, turns []transfer.Turn) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), answerTimeout)
	defer cancel()
	return s.Play(ctx, "rh1", offer(s.t, r, id, turns), r.Inc.Service)
}

// greet has a POP3 server greet the client of a connection, which it returns: transfer 1 of "rh1".
func (s *stage) greet() (served chan spoken, r *transfer.Record) {
	s.t.Helper()
	served = serveScript(s.listen(s.t, "tcp4", ":80", false), func(int) script { return pop3Script })
	r = record(client4, service4, "USER ada\r\n")
	if err := s.play(r, 1, greeted); err != nil {
		s.t.Fatal(err)
	}
	return served, r
}

// quiet checks that the client hears nothing.
func (s *stage) quiet() {
	s.t.Helper()
	if f, ok := s.next(s.t, shortly); ok {
		s.t.Errorf("the client got seq %d flags %v %q", f.Segment.Seq, f.Segment.Flags, f.Segment.Payload)
	}
}

// gone checks that the connection has no socket and is not watched.
func (s *stage) gone(t wire.Tuple) {
	s.t.Helper()
	socket, err := s.Lockstep.importer.Lookup(t)
	if err != nil || socket.State != None {
		s.t.Errorf("socket in %v (%v), want none", socket.State, err)
	}
	var entry [16]byte
	if err := s.entries.Lookup(playKey(t), &entry); err == nil {
		s.t.Error("the connection is still watched")
	}
}

// The server believes that it has talked to the client, whose numbers go on where the routing host has got to; nothing of
// that reaches the client.
func TestServerThatSpeaksFirstContinues(t *testing.T) {
	plain := func(r *transfer.Record) { r.Handshake.Timestamps, r.Handshake.SACK = false, false }
	later := func(r *transfer.Record) { r.ReadFrom, r.SndNxt = r.ReadFrom.Add(500), r.SndNxt.Add(700) }
	for _, tt := range []struct {
		name            string
		client, service netip.AddrPort
		script          script
		turns           []transfer.Turn
		change          func(*transfer.Record)
		data            string
	}{
		{"greeting", client4, service4, pop3Script, greeted, later, "USER ada\r\n"},
		{"greeting, ipv6", client6, service6, pop3Script, greeted, later, "USER ada\r\n"},
		{"greeting, nothing to read", client4, service4, pop3Script, greeted, later, ""},
		{"dialogue", client4, service4, smtpScript, talked, later, "RCPT TO:<bob@b.example>\r\n"},
		{"dialogue, ipv6", client6, service6, smtpScript, talked, later, "RCPT TO:<bob@b.example>\r\n"},
		{"dialogue longer than what was consumed", client4, service4, smtpScript, talked, nil, "RCPT TO:<bob@b.example>\r\n"},
		{"no options", client4, service4, smtpScript, talked, plain, "RCPT TO:<bob@b.example>\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStage(t)
			served := serveScript(s.listen(t, "tcp", tt.service.String(), false), func(int) script { return tt.script })
			changes := []func(*transfer.Record){}
			if tt.change != nil {
				changes = append(changes, tt.change)
			}
			r := record(tt.client, tt.service, tt.data, changes...)
			if err := s.play(r, 1, tt.turns); err != nil {
				t.Fatal(err)
			}
			s.quiet()
			done, err := s.Continue("rh1", 1, r)
			if err != nil || done.State != Established || done.RcvNxt != r.RcvNxt || done.Cookie == 0 {
				t.Fatalf("continued as %+v: %v", done, err)
			}
			<-served // the one that told the length
			checkContinued(t, s, <-served, r)
			if got := s.Counts(); got.Played != 1 || got.Learned != 1 || got.Stolen == 0 || got.Mismatched != 0 {
				t.Errorf("counted %+v", got)
			}
		})
	}
}

// checkContinued has both ends of a continued connection talk.
func checkContinued(t *testing.T, s *stage, c spoken, r *transfer.Record) {
	t.Helper()
	got := make([]byte, len(r.Data))
	if _, err := io.ReadFull(c.from, got); c.err != nil || err != nil || string(got) != string(r.Data) {
		t.Fatalf("the server read %q (%v, %v), want %q", got, c.err, err, r.Data)
	}
	peer := newClient(s.lab, r)
	reply := strings.Repeat("reply", 1000)
	io.WriteString(c, reply)
	peer.receive(t, len(reply))
	if string(peer.got) != reply {
		t.Errorf("client got %d octets, want %d of the reply", len(peer.got), len(reply))
	}
	checkFirstSegment(t, peer.first, r)
	peer.send(t, wire.ACK|wire.PSH, "more")
	more := make([]byte, 4)
	if _, err := io.ReadFull(c.from, more); err != nil || string(more) != "more" {
		t.Errorf("the server read %q (%v), want more", more, err)
	}
}

// The second connection of a job needs one connection to its server.
func TestLengthIsLearnedOnce(t *testing.T) {
	s := newStage(t)
	served := serveScript(s.listen(t, "tcp4", ":80", false), func(int) script { return pop3Script })
	for id := range transfer.ID(3) {
		r := record(netip.AddrPortFrom(client4.Addr(), uint16(41000+id)), service4, "USER ada\r\n")
		if err := s.play(r, id+1, greeted); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Continue("rh1", id+1, r); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Counts(); got.Played != 3 || got.Learned != 1 {
		t.Errorf("counted %+v, want 3 played and 1 learned", got)
	}
	for range 4 {
		<-served
	}
}

// A server whose answers are longer today is learned anew.
func TestServerWithAnotherGreetingIsLearnedAnew(t *testing.T) {
	s := newStage(t)
	var later atomic.Bool
	serveScript(s.listen(t, "tcp4", ":80", false), func(int) script {
		if later.Load() {
			return script{"+OK Dovecot (Debian) ready.\r\n"}
		}
		return pop3Script
	})
	for id := range transfer.ID(2) {
		r := record(netip.AddrPortFrom(client4.Addr(), uint16(41000+id)), service4, "USER ada\r\n")
		if err := s.play(r, id+1, greeted); err != nil {
			t.Fatal(err)
		}
		later.Store(true)
	}
	if got := s.Counts(); got.Played != 2 || got.Learned != 2 {
		t.Errorf("counted %+v, want 2 played and 2 learned", got)
	}
}

// A server that says something else than the routing host has is found out before the client hears of it.
func TestMismatchIsRejected(t *testing.T) {
	for _, tt := range []struct {
		name   string
		script func(connection int) script
		turns  []transfer.Turn
		want   string
	}{
		{"refuses", func(int) script { return script{"-ERR too many connections\r\n"} }, greeted,
			`says "-ERR too many connections\r\n", want a line that begins with "+OK"`},
		{"refuses later", func(int) script { return script{smtpScript[0], smtpScript[1], "550 go away\r\n"} }, talked,
			`says "550 go away\r\n", want a line that begins with "250 "`},
		{"says more", func(int) script { return script{"+OK\r\n+OK really\r\n"} }, greeted, "goes on after its answer"},
		{"varies", func(n int) script { return script{"+OK <" + strings.Repeat("x", n) + ">\r\n"} }, greeted,
			"differ in length"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStage(t)
			serveScript(s.listen(t, "tcp4", ":80", false), tt.script)
			r := record(client4, service4, "USER ada\r\n")
			err := s.play(r, 1, tt.turns)
			if !errors.Is(err, ErrDialogue) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %v with %q", err, ErrDialogue, tt.want)
			}
			if _, err := s.Continue("rh1", 1, r); !errors.Is(err, ErrNoPlay) {
				t.Errorf("continued all the same: %v", err)
			}
			s.gone(r.Inc.Tuple)
			s.quiet()
			if got := s.Counts(); got.Mismatched != 1 || got.Played != 0 {
				t.Errorf("counted %+v", got)
			}
		})
	}
}

// A server that closes, or says nothing, is no server for the connection.
func TestServerThatDoesNotTalkIsRejected(t *testing.T) {
	s := newStage(t)
	ln := s.listen(t, "tcp4", ":80", false)
	go func() {
		if c, err := ln.Accept(); err == nil {
			c.Close()
		}
	}()
	r := record(client4, service4, "USER ada\r\n")
	if err := s.play(r, 1, greeted); !errors.Is(err, ErrDialogue) || !strings.Contains(err.Error(), "closes") {
		t.Errorf("closing server: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), shortly)
	defer cancel()
	err := s.Play(ctx, "rh1", offer(t, r, 2, greeted), service4) // nobody accepts
	if !errors.Is(err, ErrDialogue) || !strings.Contains(err.Error(), "does not answer in time") {
		t.Errorf("silent server: %v", err)
	}
	s.gone(r.Inc.Tuple)
	s.quiet()
}

// What was played for nothing ends, and only the server hears of it.
func TestAbandonedPlayEndsAtTheServerOnly(t *testing.T) {
	s := newStage(t)
	served, r := s.greet()
	if err := s.Abandon("rh1", 2); err != nil { // another one
		t.Fatal(err)
	}
	<-served
	c := <-served
	if err := s.Abandon("rh1", 1); err != nil {
		t.Fatal(err)
	}
	if line, err := c.from.ReadString('\n'); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the server read %q (%v), want a reset", line, err)
	}
	s.gone(r.Inc.Tuple)
	s.quiet()
	if got := s.Counts(); got.Abandoned != 1 {
		t.Errorf("counted %+v", got)
	}
}

// A later offer of the tuple takes the place of what was played for an older one.
func TestLaterOfferTakesTheTuple(t *testing.T) {
	s := newStage(t)
	served := serveScript(s.listen(t, "tcp4", ":80", false), func(int) script { return pop3Script })
	old := record(client4, service4, "USER ada\r\n")
	if err := s.play(old, 1, greeted); err != nil {
		t.Fatal(err)
	}
	r := record(client4, service4, "USER bob\r\n", func(r *transfer.Record) {
		r.Inc.IRS, r.Inc.ISS = 77, 99
		r.ReadFrom, r.SndNxt = 78, 100
	})
	if err := s.play(r, 2, greeted); err != nil {
		t.Fatal(err)
	}
	if err := s.Abandon("rh1", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Continue("rh1", 1, old); !errors.Is(err, ErrNoPlay) {
		t.Errorf("the older one was continued: %v", err)
	}
	if _, err := s.Continue("rh1", 2, r); err != nil {
		t.Fatal(err)
	}
	<-served
	<-served
	checkContinued(t, s, <-served, r)
}

// Before the connection is open the guard keeps the client's segments from it, and afterwards not.
func TestGuardKeepsTheClientOutOfADialogue(t *testing.T) {
	s := newStage(t)
	g := s.guard(t, s.dir, service4)
	served, r := s.greet()
	newClient(s.lab, r).send(t, wire.ACK|wire.PSH, "PASS\r\n")
	if got := s.counters(t, g); got.PlayedTo != 1 || got.Passed != 0 {
		t.Errorf("guard counted %+v, want one played to", got)
	}
	s.quiet()
	if _, err := s.Continue("rh1", 1, r); err != nil {
		t.Fatal(err)
	}
	<-served
	checkContinued(t, s, <-served, r)
}

// A server that says something between dialogue and commit does not get the connection.
func TestServerThatGoesOnIsRejectedAtTheCommit(t *testing.T) {
	s := newStage(t)
	served, r := s.greet()
	<-served
	c := <-served
	io.WriteString(c, "-ERR too slow\r\n")
	heard := s.plays[r.Inc.Tuple].heard
	for deadline := time.Now().Add(answerTimeout); len(heard) == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if _, err := s.Continue("rh1", 1, r); !errors.Is(err, ErrDialogue) {
		t.Errorf("continued: %v", err)
	}
	s.gone(r.Inc.Tuple)
	s.quiet()
}

// A server that repeats what was acknowledged late has not gone on.
func TestRepeatedAnswerIsNoAnswer(t *testing.T) {
	s := newStage(t)
	served, r := s.greet()
	last := pop3Script[0][10:]
	s.plays[r.Inc.Tuple].heard <- wire.Segment{Seq: r.SndNxt.Add(-len(last)), Ack: r.ReadFrom, Flags: wire.ACK,
		Payload: []byte(last)}
	if _, err := s.Continue("rh1", 1, r); err != nil {
		t.Fatal(err)
	}
	<-served
	checkContinued(t, s, <-served, r)
}

// The record of the commit must begin where the dialogue has ended.
func TestOtherRecordIsNotContinued(t *testing.T) {
	s := newStage(t)
	_, r := s.greet()
	moved := record(client4, service4, "ada\r\n", func(r *transfer.Record) { r.ReadFrom = r.ReadFrom.Add(5) })
	if _, err := s.Continue("rh1", 1, moved); !errors.Is(err, ErrRecord) {
		t.Errorf("continued: %v", err)
	}
	s.gone(r.Inc.Tuple)
	s.quiet()
}

// Without its agent a server that believes to have a client stays unheard; the next agent ends its connection.
func TestNextAgentEndsWhatWasPlayed(t *testing.T) {
	s := newStage(t)
	served, r := s.greet()
	<-served
	c := <-served
	s.kill()
	io.WriteString(c, "-ERR nobody there\r\n")
	c.Close()
	s.quiet()
	s.Lockstep = s.open()
	s.gone(r.Inc.Tuple)
	s.quiet()
}

// An agent whose configuration has no dialogues any more ends what was played, and takes the program down; a connection
// that was continued goes on.
func TestNextAgentWithoutLockstepTakesItDown(t *testing.T) {
	s := newStage(t)
	served, stays := s.greet()
	if _, err := s.Continue("rh1", 1, stays); err != nil {
		t.Fatal(err)
	}
	<-served
	c := <-served
	left := record(clientPort(2), service4, "USER ada\r\n")
	if err := s.play(left, 2, greeted); err != nil {
		t.Fatal(err)
	}
	s.kill()

	if err := retireLockstep(s.Namespace, s.dir, s.lab.importer(t)); err != nil {
		t.Fatal(err)
	}
	if pins, err := egressPins(s.dir); err != nil || len(pins) > 0 {
		t.Errorf("pins %v (%v), want none", pins, err)
	}
	s.Lockstep = s.open()
	s.gone(left.Inc.Tuple)
	checkContinued(t, s, c, stays)
}

func FuzzAnswer(f *testing.F) {
	for _, turn := range talked {
		for _, line := range smtpScript {
			f.Add(line, turn.More, turn.Last, 3)
		}
	}
	f.Fuzz(func(t *testing.T, said, more, last string, cut int) {
		whole, pieces := answer{turn: transfer.Turn{More: more, Last: last}}, answer{turn: transfer.Turn{More: more, Last: last}}
		cut = min(max(cut, 0), len(said))
		err := whole.add([]byte(said))
		inPieces := pieces.add([]byte(said[:cut]))
		if inPieces == nil {
			inPieces = pieces.add([]byte(said[cut:]))
		}
		if (err == nil) != (inPieces == nil) || err == nil && whole.done != pieces.done {
			t.Errorf("%q at once: %v, %t; cut at %d: %v, %t", said, err, whole.done, cut, inPieces, pieces.done)
		}
		if err == nil && whole.done && !strings.HasSuffix(said, "\n") {
			t.Errorf("%q is a whole answer", said)
		}
	})
}

func Example_answer() {
	a := answer{turn: transfer.Turn{More: "250-", Last: "250 "}}
	fmt.Println(a.add([]byte("250-mail.example\r\n25")), a.done)
	fmt.Println(a.add([]byte("0 SIZE\r\n")), a.done)
	// Output:
	// <nil> false
	// <nil> true
}

// BenchmarkPlay is a greeting that is played, and the connection continued; the server is a goroutine.
func BenchmarkPlay(b *testing.B) {
	l := newLab(b)
	dir := newPinDir(b)
	lockstep, err := OpenLockstep(l.Namespace, dir, l.importer(b))
	if err != nil {
		b.Fatal(err)
	}
	defer lockstep.Close()
	served := serveScript(l.listen(b, "tcp4", ":80", false), func(int) script { return pop3Script })
	go func() {
		for c := range served {
			go func() {
				c.from.ReadString('\n')
				c.Close()
			}()
		}
	}()
	for id := transfer.ID(1); b.Loop(); id++ {
		r := record(netip.AddrPortFrom(client4.Addr(), uint16(1024+id%60000)), service4, "USER ada\r\n")
		if err := lockstep.Play(b.Context(), "rh1", offer(b, r, id, greeted), service4); err != nil {
			b.Fatal(err)
		}
		if _, err := lockstep.Continue("rh1", id, r); err != nil {
			b.Fatal(err)
		}
	}
}
