package xcf

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// event is one call of a Handler.
type event struct {
	kind string // up, message, down
	peer *Peer
	env  *Envelope
	err  error
}

// recorder is a Handler that keeps what it is told.
type recorder chan event

func newRecorder() recorder { return make(recorder, 1<<15) }

func (r recorder) Up(p *Peer)                   { r <- event{kind: "up", peer: p} }
func (r recorder) Message(p *Peer, e *Envelope) { r <- event{kind: "message", peer: p, env: e} }
func (r recorder) Down(p *Peer, err error)      { r <- event{kind: "down", peer: p, err: err} }

// next returns the next call, which must be of this kind.
func (r recorder) next(t *testing.T, kind string) event {
	t.Helper()
	select {
	case e := <-r:
		if e.kind != kind {
			t.Fatalf("got %s (%v), want %s", e.kind, e.err, kind)
		}
		return e
	case <-time.After(patience):
		t.Fatalf("no %s within %s", kind, patience)
	}
	panic("unreachable")
}

// logBuffer collects log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// waitFor returns once the log has a line with all words.
func (l *logBuffer) waitFor(t *testing.T, words ...string) {
	t.Helper()
	eventually(t, func() bool {
		for line := range strings.Lines(l.String()) {
			if containsAll(line, words) {
				return true
			}
		}
		return false
	}, func() string { return "no log line with " + strings.Join(words, ", ") + " in:\n" + l.String() })
}

func containsAll(line string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(line, w) {
			return false
		}
	}
	return true
}

// eventually fails with why unless cond holds before long.
func eventually(t *testing.T, cond func() bool, why func() string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatal(why())
}

// newCA makes a directory with a CA.
func newCA(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := CreateCA(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// host issues a certificate and returns the host's configuration.
func host(t *testing.T, dir string, role Role, name string, validity time.Duration) Config {
	t.Helper()
	if err := IssueHost(dir, role, name, validity); err != nil {
		t.Fatal(err)
	}
	return Config{Name: name, Software: "test", Files: Files{
		CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+".key"),
	}}
}

// serve starts a Server, and stops it with the test.
func serve(t *testing.T, c Config) (*Server, recorder, *logBuffer) {
	t.Helper()
	h, log := newRecorder(), new(logBuffer)
	s, err := Listen("127.0.0.1:0", c, h, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, h, log
}

// dial starts a Dialer towards one routing host, and stops it with the test.
func dial(t *testing.T, c Config, routers ...Router) (*Dialer, recorder, *logBuffer) {
	t.Helper()
	h, log := newRecorder(), new(logBuffer)
	d, err := NewDialer(c, routers, h, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { d.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return d, h, log
}

// pair is a routing host rh1 and a target t1 with a stream that is up.
type pair struct {
	dir      string
	server   *Server
	atServer recorder
	dialer   *Dialer
	atDialer recorder
}

func newPair(t *testing.T) pair {
	t.Helper()
	dir := newCA(t)
	router := host(t, dir, RoleRouter, "rh1", 0)
	router.Epoch = 7
	p := pair{dir: dir}
	p.server, p.atServer, _ = serve(t, router)
	p.dialer, p.atDialer, _ = dial(t, host(t, dir, RoleTarget, "t1", 0), Router{"rh1", p.server.Addr().String()})
	p.atServer.next(t, "up")
	p.atDialer.next(t, "up")
	return p
}

// release is a message that is told from others by its transfer.
func release(id uint64) *Envelope {
	return &Envelope{Message: &Envelope_Release{Release: &Release{Transfer: id}}}
}

// rawPeer is a peer of which the test writes every octet: TLS with the certificate of c, without any checks.
func rawPeer(t *testing.T, address string, c Config) *tls.Conn {
	t.Helper()
	cert, err := tls.LoadX509KeyPair(c.Files.Cert, c.Files.Key)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", address, &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// say writes e to a raw peer's connection.
func say(t *testing.T, conn net.Conn, e *Envelope) {
	t.Helper()
	frame, err := appendFrame(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(frame); err != nil {
		t.Fatal(err)
	}
}

func hello(version uint32, name string) *Envelope {
	return &Envelope{Message: &Envelope_Hello{Hello: &Hello{Version: version, Host: name}}}
}

func TestMessagesArriveBothWays(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	if err := p.server.Send("t1", release(1)); err != nil {
		t.Fatal(err)
	}
	got := p.atDialer.next(t, "message")
	if got.env.GetRelease().GetTransfer() != 1 {
		t.Errorf("target got %v, want release 1", got.env)
	}
	who := got.peer
	if who.Identity() != (Identity{RoleRouter, "rh1"}) || who.Epoch() != 7 || who.Software() != "test" {
		t.Errorf("peer is %s, epoch %d, software %q", who.Identity(), who.Epoch(), who.Software())
	}
	if err := got.peer.Send(release(2)); err != nil {
		t.Fatal(err)
	}
	back := p.atServer.next(t, "message")
	if back.env.GetRelease().GetTransfer() != 2 || back.peer.Name() != "t1" {
		t.Errorf("routing host got %v from %s, want release 2 from t1", back.env, back.peer.Name())
	}
}

func TestLargestRecordPassesAndLargerIsRefusedBySend(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	commit := func(n int) *Envelope {
		return &Envelope{Message: &Envelope_Commit{Commit: &Commit{Transfer: 1, Record: make([]byte, n)}}}
	}
	if err := p.server.Send("t1", commit(MaxMessage-100)); err != nil {
		t.Fatal(err)
	}
	if n := len(p.atDialer.next(t, "message").env.GetCommit().GetRecord()); n != MaxMessage-100 {
		t.Errorf("record has %d octets, want %d", n, MaxMessage-100)
	}
	if err := p.server.Send("t1", commit(MaxMessage)); !errors.Is(err, ErrOversize) {
		t.Errorf("Send of more than MaxMessage: %v, want ErrOversize", err)
	}
	if err := p.server.Send("t1", release(3)); err != nil { // the stream lives on
		t.Fatal(err)
	}
	p.atDialer.next(t, "message")
}

func TestConcurrentSendersKeepTheirOrder(t *testing.T) {
	t.Parallel()
	const senders, each = 4, 2000
	p := newPair(t)
	var all sync.WaitGroup
	for s := range uint64(senders) {
		all.Go(func() {
			for i := range uint64(each) {
				if err := p.server.Send("t1", release(s<<32|i)); err != nil {
					t.Errorf("sender %d, message %d: %v", s, i, err)
					return
				}
			}
		})
	}
	var next [senders]uint64
	for range senders * each {
		id := p.atDialer.next(t, "message").env.GetRelease().GetTransfer()
		if s, i := id>>32, id&0xffffffff; i != next[s] {
			t.Fatalf("sender %d: message %d came, want %d", s, i, next[s])
		}
		next[id>>32]++
	}
	all.Wait()
	if s := p.dialer.Stats()[0]; s.Received < senders*each || !s.Up || s.Streams != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestRoundTripIsMeasured(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	measured := func() bool { return p.server.Stats()[0].RTT > 0 && p.dialer.Stats()[0].RTT > 0 }
	eventually(t, measured, func() string { return "no round trip measured" })
}

func TestSendWithoutStreamFails(t *testing.T) {
	t.Parallel()
	dir := newCA(t)
	s, _, _ := serve(t, host(t, dir, RoleRouter, "rh1", 0))
	if err := s.Send("t1", release(1)); !errors.Is(err, ErrNotConnected) {
		t.Errorf("Send: %v, want ErrNotConnected", err)
	}
}

func TestDialerReconnectsAfterLoss(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.server.find("t1").Close()
	if e := p.atServer.next(t, "down"); !errors.Is(e.err, ErrClosed) {
		t.Errorf("Down at the server: %v, want ErrClosed", e.err)
	}
	p.atDialer.next(t, "down")
	p.atServer.next(t, "up")
	p.atDialer.next(t, "up")
	if err := p.server.Send("t1", release(9)); err != nil {
		t.Fatal(err)
	}
	p.atDialer.next(t, "message")
	if s := p.server.Stats()[0]; s.Streams != 2 || s.Host != "t1" {
		t.Errorf("stats %+v, want 2 streams", s)
	}
}

func TestDialerFindsAServerThatStartsLater(t *testing.T) {
	t.Parallel()
	dir := newCA(t)
	router := host(t, dir, RoleRouter, "rh1", 0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, atDialer, log := dial(t, host(t, dir, RoleTarget, "t1", 0), Router{"rh1", address})
	log.waitFor(t, "connection refused", "host=rh1")
	s, err := Listen(address, router, newRecorder(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Skipf("port was taken meanwhile: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	atDialer.next(t, "up")
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestSecondStreamOfAHostReplacesTheFirst(t *testing.T) {
	t.Parallel()
	dir := newCA(t)
	s, h, _ := serve(t, host(t, dir, RoleRouter, "rh1", 0))
	t1 := host(t, dir, RoleTarget, "t1", 0)
	first := rawPeer(t, s.Addr().String(), t1)
	say(t, first, hello(1, "t1"))
	old := h.next(t, "up").peer
	second := rawPeer(t, s.Addr().String(), t1)
	say(t, second, hello(1, "t1"))
	if e := h.next(t, "down"); e.peer != old || !errors.Is(e.err, ErrReplaced) {
		t.Errorf("Down of the first: %v, want ErrReplaced", e.err)
	}
	if h.next(t, "up").peer == old {
		t.Error("the second stream is the first one")
	}
	say(t, second, release(4))
	h.next(t, "message")
}

func TestBadPeersAreClosedWithTheReason(t *testing.T) {
	t.Parallel()
	dir := newCA(t)
	s, h, log := serve(t, host(t, dir, RoleRouter, "rh1", 0))
	t1 := host(t, dir, RoleTarget, "t1", 0)
	before := []struct {
		name string
		do   func(t *testing.T, conn *tls.Conn)
		want string
	}{
		{"message before hello", func(t *testing.T, c *tls.Conn) { say(t, c, release(1)) }, "not with Hello"},
		{"newer version", func(t *testing.T, c *tls.Conn) { say(t, c, hello(2, "t1")) }, "speaks XCF version 2, we speak 1"},
		{"another's name", func(t *testing.T, c *tls.Conn) { say(t, c, hello(1, "t2")) }, `calls itself \"t2\"`},
	}
	for _, row := range before {
		t.Run(row.name, func(t *testing.T) {
			row.do(t, rawPeer(t, s.Addr().String(), t1))
			log.waitFor(t, "refused", row.want)
		})
	}
	after := []struct {
		name   string
		octets []byte
		want   error
	}{
		{"oversize", []byte{0, 0x20, 0, 0}, ErrOversize},
		{"length of 4 GiB", []byte{0xff, 0xff, 0xff, 0xff}, ErrOversize},
		{"garbage", []byte{0, 0, 0, 3, 0xff, 0xff, 0xff}, ErrGarbage},
		{"second hello", mustFrame(t, hello(1, "t1")), ErrProtocol},
	}
	for _, row := range after {
		t.Run(row.name, func(t *testing.T) {
			conn := rawPeer(t, s.Addr().String(), t1)
			say(t, conn, hello(1, "t1"))
			h.next(t, "up")
			if _, err := conn.Write(row.octets); err != nil {
				t.Fatal(err)
			}
			if e := h.next(t, "down"); !errors.Is(e.err, row.want) {
				t.Errorf("Down: %v, want %v", e.err, row.want)
			}
		})
	}
}

func mustFrame(t *testing.T, e *Envelope) []byte {
	t.Helper()
	frame, err := appendFrame(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

func TestUnknownMessageOfANewerPeerIsIgnored(t *testing.T) {
	t.Parallel()
	dir := newCA(t)
	s, h, _ := serve(t, host(t, dir, RoleRouter, "rh1", 0))
	conn := rawPeer(t, s.Addr().String(), host(t, dir, RoleTarget, "t1", 0))
	say(t, conn, hello(1, "t1"))
	h.next(t, "up")
	if _, err := conn.Write([]byte{0, 0, 0, 3, 0xfa, 0x3f, 0}); err != nil { // field 1023, empty
		t.Fatal(err)
	}
	say(t, conn, release(5))
	if got := h.next(t, "message").env.GetRelease().GetTransfer(); got != 5 {
		t.Errorf("got release %d, want 5", got)
	}
}

func TestConnectionsThatSayNothingAreClosedAndDoNotHoldUpOthers(t *testing.T) {
	t.Parallel()
	dir := newCA(t)
	s, h, log := serve(t, host(t, dir, RoleRouter, "rh1", 0))
	silent, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	t1 := host(t, dir, RoleTarget, "t1", 0)
	rawPeer(t, s.Addr().String(), t1) // TLS, but no Hello
	dial(t, t1, Router{"rh1", s.Addr().String()})
	h.next(t, "up")
	log.waitFor(t, "refused", "handshake", "peer does not answer within 5s")
	log.waitFor(t, "refused", "hello", "peer does not answer within 5s")
	if _, err := silent.Read(make([]byte, 1)); err == nil {
		t.Error("the silent connection got data")
	}
}

func TestPlainTextIsRefused(t *testing.T) {
	t.Parallel()
	s, _, log := serve(t, host(t, newCA(t), RoleRouter, "rh1", 0))
	conn, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	log.waitFor(t, "refused", "peer does not speak TLS")
}

func TestSilentPeerIsDead(t *testing.T) {
	t.Parallel()
	dir := newCA(t)
	s, h, _ := serve(t, host(t, dir, RoleRouter, "rh1", 0))
	conn := rawPeer(t, s.Addr().String(), host(t, dir, RoleTarget, "t1", 0))
	say(t, conn, hello(1, "t1"))
	h.next(t, "up")
	begin := time.Now()
	if e := h.next(t, "down"); !errors.Is(e.err, ErrDead) {
		t.Errorf("Down: %v, want ErrDead", e.err)
	}
	if took := time.Since(begin); took > deadAfter+2*pingInterval {
		t.Errorf("it took %s to notice", took)
	}
}

func TestPeerThatAnswersNoPingIsDeadAlthoughItTalks(t *testing.T) {
	t.Parallel()
	dir := newCA(t)
	s, h, _ := serve(t, host(t, dir, RoleRouter, "rh1", 0))
	conn := rawPeer(t, s.Addr().String(), host(t, dir, RoleTarget, "t1", 0))
	say(t, conn, hello(1, "t1"))
	h.next(t, "up")
	frame := mustFrame(t, release(1))
	begin := time.Now()
	for time.Since(begin) < patience { // until the server closes it
		if _, err := conn.Write(frame); err != nil {
			break
		}
		time.Sleep(pingInterval / 4)
	}
	for e := range h {
		if e.kind == "down" {
			if !errors.Is(e.err, ErrDead) {
				t.Errorf("Down: %v, want ErrDead", e.err)
			}
			return
		}
	}
}

func TestSendNeverBlocksOnAPeerThatDoesNotRead(t *testing.T) {
	t.Parallel()
	dir := newCA(t)
	s, h, _ := serve(t, host(t, dir, RoleRouter, "rh1", 0))
	conn := rawPeer(t, s.Addr().String(), host(t, dir, RoleTarget, "t1", 0))
	say(t, conn, hello(1, "t1"))
	peer := h.next(t, "up").peer
	big := &Envelope{Message: &Envelope_Commit{Commit: &Commit{Record: make([]byte, 60<<10)}}}
	var slowest time.Duration
	var err error
	for i := 0; err == nil && i < 2000; i++ { // 117 MiB, more than any socket buffer
		begin := time.Now()
		err = peer.Send(big)
		slowest = max(slowest, time.Since(begin))
	}
	if !errors.Is(err, ErrQueueFull) {
		t.Errorf("Send: %v, want ErrQueueFull", err)
	}
	if slowest > time.Second {
		t.Errorf("a Send took %s", slowest)
	}
	if s.Stats()[0].Refused == 0 {
		t.Error("refused messages are not counted")
	}
	h.next(t, "down") // dead: its pings do not come through
}

// TestNotesWaitForTransfersAndNotTheOtherWayRound: what a host that does not read is sent last comes before the notes that
// wait for it.
func TestNotesWaitForTransfersAndNotTheOtherWayRound(t *testing.T) {
	t.Parallel()
	dir := newCA(t)
	s, h, _ := serve(t, host(t, dir, RoleRouter, "rh1", 0))
	conn := rawPeer(t, s.Addr().String(), host(t, dir, RoleTarget, "t1", 0))
	say(t, conn, hello(1, "t1"))
	peer := h.next(t, "up").peer
	note := func(seq int) *Envelope {
		return &Envelope{Message: &Envelope_Note{Note: &Note{Seq: uint64(seq), Data: make([]byte, 32<<10)}}}
	}
	taken := 0
	var err error
	for err == nil && taken < 2000 { // 62 MiB, more than any socket buffer
		if err = peer.Send(note(taken)); err == nil {
			taken++
		}
	}
	if !errors.Is(err, ErrQueueFull) {
		t.Fatalf("Send: %v, want ErrQueueFull", err)
	}
	if err := peer.Send(release(7)); err != nil {
		t.Fatal(err)
	}
	frames, before := newFrameReader(conn), -1
	for seen := 0; seen < taken; {
		e, _, err := frames.next()
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case e.GetRelease() != nil:
			before = seen
		case e.GetNote() != nil && e.GetNote().GetSeq() == uint64(seen):
			seen++
		case e.GetNote() != nil:
			t.Fatalf("note %d comes as number %d", e.GetNote().GetSeq(), seen)
		}
	}
	if waiting := notesMax / (64 << 10); before < 0 || taken-before < waiting { // some may have found room in the meantime
		t.Errorf("%d of %d notes came first, want all but %d that waited", before, taken, waiting)
	}
}

func TestServeEndsItsStreamsWithItsContext(t *testing.T) {
	t.Parallel()
	dir := newCA(t)
	h := newRecorder()
	s, err := Listen("127.0.0.1:0", host(t, dir, RoleRouter, "rh1", 0), h, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx) }()
	_, atDialer, _ := dial(t, host(t, dir, RoleTarget, "t1", 0), Router{"rh1", s.Addr().String()})
	atDialer.next(t, "up")
	h.next(t, "up")
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if e := h.next(t, "down"); !errors.Is(e.err, ErrClosed) {
		t.Errorf("Down: %v, want ErrClosed", e.err)
	}
	atDialer.next(t, "down")
}

func TestListenerClosedUnderServeIsAnError(t *testing.T) {
	t.Parallel()
	s, err := Listen("127.0.0.1:0", host(t, newCA(t), RoleRouter, "rh1", 0), newRecorder(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v, want net.ErrClosed", err)
	}
}
