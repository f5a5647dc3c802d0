package target

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"baton/control/target/bpf"
	"baton/control/transfer"
	"baton/fastpath/wire"
)

const (
	moveWindow = 32768
	waitMax    = 2200 * time.Millisecond // for which a FIN waits, and a little
	asked      = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
	answered   = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
)

// moving is a lab with a Mover, and one connection there.
type moving struct {
	*lab
	im    *Importer
	mover *Mover
	taken chan transfer.Record
	ln    net.Listener
	rec   *transfer.Record
	app   net.Conn
	peer  *client
}

func (l *lab) mover(t *testing.T, im *Importer) (*Mover, chan transfer.Record) {
	t.Helper()
	taken := make(chan transfer.Record, 16)
	m, err := OpenMover(l.Namespace, []string{l.dev}, im, slog.New(slog.DiscardHandler),
		func(r transfer.Record) { taken <- r })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m, taken
}

// move imports a connection whose client has sent data, and accepts it.
func move(t *testing.T, client, service netip.AddrPort, data string) *moving {
	t.Helper()
	l := newLab(t)
	m := &moving{lab: l, im: l.importer(t), ln: l.listen(t, "tcp", ":80", false)}
	m.mover, m.taken = l.mover(t, m.im)
	m.rec = record(client, service, data)
	m.bring(t)
	return m
}

func (m *moving) bring(t *testing.T) {
	t.Helper()
	if err := m.mover.Follow(m.rec, moveWindow); err != nil {
		t.Fatal(err)
	}
	mustImport(t, m.im, m.rec, m.rec.Inc.Service)
	m.app, m.peer = accept(t, m.ln), newClient(m.lab, m.rec)
}

// serve has the application read n octets and answer, and the client take the answer.
func (m *moving) serve(t *testing.T, n int, answer string) {
	t.Helper()
	if _, err := io.ReadFull(m.app, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	m.say(t, answer)
}

func (m *moving) say(t *testing.T, answer string) {
	t.Helper()
	if _, err := io.WriteString(m.app, answer); err != nil {
		t.Fatal(err)
	}
	m.peer.receive(t, len(m.peer.got)+len(answer))
}

// wantTaken waits for the record of the connection, of which the client hears nothing.
func (m *moving) wantTaken(t *testing.T) transfer.Record {
	t.Helper()
	select {
	case r := <-m.taken:
		f, ok := m.next(t, shortly)
		news := f.Segment.Flags.Has(wire.RST) || f.Segment.Seq.Add(f.Segment.Len()).After(m.peer.rcv)
		if ok && news && f.Dst == m.rec.Inc.Client { // and no repetition that was under way before
			t.Errorf("the client gets %v", f.Segment)
		}
		return r
	case <-time.After(answerTimeout):
		t.Fatalf("no FIN was taken: %+v", m.closes(t))
	}
	return transfer.Record{}
}

func (m *moving) closes(t *testing.T) Closes {
	t.Helper()
	c, err := m.mover.Closes()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wantPassed expects the client to get a FIN, and why.
func (m *moving) wantPassed(t *testing.T, reason string) {
	t.Helper()
	m.peer.receive(t, 1<<30)
	c := m.closes(t)
	if !m.peer.fin || m.peer.rst || c.Taken != 0 || c.Passed[reason] != 1 {
		t.Errorf("FIN %v RST %v %+v, want a FIN that passes for reason %s", m.peer.fin, m.peer.rst, c, reason)
	}
}

// What was taken is the whole state of the connection.
func TestIdleCloseIsTaken(t *testing.T) {
	for _, end := range [][2]netip.AddrPort{{client4, service4}, {client6, service6}} {
		t.Run(end[1].Addr().String(), func(t *testing.T) {
			m := move(t, end[0], end[1], asked)
			m.serve(t, len(asked), answered)
			m.peer.send(t, wire.ACK|wire.PSH, asked)
			m.serve(t, len(asked), answered)
			m.app.Close()
			r := m.wantTaken(t)
			switch {
			case r.Inc != m.rec.Inc || r.Epoch != m.rec.Epoch || r.Handshake != m.rec.Handshake:
				t.Errorf("another connection: %+v", r)
			case r.RcvNxt != m.peer.snd || r.ReadFrom != r.RcvNxt || r.RcvAcked != r.RcvNxt:
				t.Errorf("receives from %d, read from %d, acknowledged %d, want %d", r.RcvNxt, r.ReadFrom, r.RcvAcked, m.peer.snd)
			case r.SndNxt != m.peer.rcv || r.SndUna != r.SndNxt || r.SndWnd != 512<<7:
				t.Errorf("sends %d, una %d, window %d, want %d", r.SndNxt, r.SndUna, r.SndWnd, m.peer.rcv)
			case r.RcvEdge != r.RcvNxt.Add(moveWindow):
				t.Errorf("right edge %d beyond what is received", r.RcvEdge.Sub(r.RcvNxt))
			case r.TSOffset != m.rec.TSOffset || r.TSRecent != m.rec.TSRecent+1 || r.TSLast < m.peer.first.Options.TSVal:
				t.Errorf("timestamps %d %d %d", r.TSOffset, r.TSRecent, r.TSLast)
			}
			if err := r.Check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// While it is frozen, nothing passes in either direction; once its socket is gone, the client may come back.
func TestTakenConnectionIsFrozenAndComesBack(t *testing.T) {
	m := move(t, client4, service4, asked)
	m.serve(t, len(asked), answered)
	m.app.Close()
	r := m.wantTaken(t)
	m.send(t, client4, service4, m.peer.segment(wire.ACK|wire.PSH, asked)) // it will be repeated
	time.Sleep(500 * time.Millisecond)                                     // repetitions of the FIN
	if f, ok := m.next(t, shortly); ok && f.Dst == client4 {
		t.Errorf("the client gets %v", f.Segment)
	}
	if c := m.closes(t); c.Held != 1 || c.Repeated == 0 || c.Taken != 1 {
		t.Errorf("%+v, want one segment held and repeated FINs", c)
	}
	if err := m.im.End(r.Inc.Tuple, r.RcvNxt); err != nil {
		t.Fatal(err)
	}
	checkState(t, m.im, r.Inc.Tuple, None)
	if err := m.mover.Forget(r.Inc); err != nil {
		t.Fatal(err)
	}
	// It comes back with its next request.
	before := m.peer
	r.Data, r.RcvNxt, r.Job = []byte(asked), r.RcvNxt.Add(len(asked)), "web"
	m.rec = &r
	m.bring(t)
	if m.peer.rcv != before.rcv {
		t.Errorf("the server goes on at %d, want %d", m.peer.rcv, before.rcv)
	}
	m.serve(t, len(asked), answered)
	m.app.Close()
	m.wantTaken(t)
}

// Whatever the agent says about a flow's phase, what its client was promised meanwhile is not forgotten.
func TestChangedPhaseForgetsNoPromise(t *testing.T) {
	m := move(t, client4, service4, asked)
	m.serve(t, len(asked), answered)
	const open = bpf.MoveBatonPhaseBATON_PHASE_OPEN
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := m.mover.setPhase(m.rec.Inc, open, open); err != nil {
				stopped <- err
				return
			}
		}
	}()
	for range 1000 {
		m.peer.send(t, wire.ACK|wire.PSH, "x")
		if _, err := io.ReadFull(m.app, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		m.say(t, "y")
		if acked, _, _, err := m.mover.Promised(m.rec.Inc.Tuple); err != nil || acked.Before(m.peer.snd) {
			t.Fatalf("acknowledged up to %d by the program (%v), the client knows of %d", acked, err, m.peer.snd)
		}
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
}

// Without an owner elsewhere the connection ends as ever.
func TestLetGoHasTheFINOut(t *testing.T) {
	m := move(t, client4, service4, asked)
	m.serve(t, len(asked), answered)
	m.app.Close()
	r := m.wantTaken(t)
	if err := m.mover.LetGo(r.Inc); err != nil {
		t.Fatal(err)
	}
	m.peer.receive(t, 1<<30)
	if !m.peer.fin || m.peer.rst {
		t.Errorf("FIN %v RST %v, want the FIN", m.peer.fin, m.peer.rst)
	}
	m.peer.send(t, wire.ACK|wire.FIN, "")
	checkState(t, m.im, r.Inc.Tuple, TimeWait)
}

// A Mover that goes lets everything go.
func TestClosedMoverHasTheFINOut(t *testing.T) {
	m := move(t, client4, service4, asked)
	m.serve(t, len(asked), answered)
	m.app.Close()
	m.wantTaken(t)
	if err := m.mover.Close(); err != nil {
		t.Fatal(err)
	}
	m.peer.receive(t, 1<<30)
	if !m.peer.fin {
		t.Error("no FIN")
	}
}

// A FIN passes wherever the client could miss it.
func TestFINPasses(t *testing.T) {
	head := func(fields ...string) string {
		return "HTTP/1.1 200 OK\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n"
	}
	tests := []struct {
		name     string
		asked    string
		answered string
		reason   string
	}{
		{"no response", asked, "", "response"},
		{"half a body", asked, head("Content-Length: 500") + "hello", "response"},
		{"half a head", asked, "HTTP/1.1 200 OK\r\nContent-Le", "framing"},
		{"server says close", asked, head("Content-Length: 5", "Connection: close") + "hello", "said"},
		{"server says close in another way", asked, head("Content-Length: 5", "connection:Keep-Alive, Close") + "hello", "said"},
		{"client says close", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", answered, "said"},
		{"client of HTTP/1.0", "GET / HTTP/1.0\r\nHost: a.example\r\n\r\n", answered, "said"},
		{"server of HTTP/1.0", asked, "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "said"},
		{"body until the end", asked, head("Server: x") + answered, "said"},
		{"upgraded", asked, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "framing"},
		{"no HTTP", "USER ada\r\nPASS secret\r\n", "+OK welcome\r\n+OK maildrop\r\n", "framing"},
		{"two lengths", asked, head("Content-Length: 5", "Content-Length: 500") + "hello", "framing"},
		{"trailers", asked, head("Transfer-Encoding: chunked") + "5\r\nhello\r\n0\r\nX: y\r\n\r\n", "framing"},
		{"half chunks", asked, head("Transfer-Encoding: chunked") + "5\r\nhello\r\n", "response"},
		{"pipelined request unanswered", asked + asked, answered, "request"},
		{"unasked response", asked, answered + answered, "framing"},
		{"HEAD with more after it", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", head("Content-Length: 5") + "hello", "framing"},
		{"head too long", asked, head("X: "+strings.Repeat("x", 5000), "Content-Length: 5") + "hello", "framing"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := move(t, client4, service4, tt.asked)
			m.serve(t, len(tt.asked), tt.answered)
			m.app.Close()
			m.wantPassed(t, tt.reason)
		})
	}
}

// Whatever ends well is taken.
func TestFramingIsFollowed(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 2500)
	chunks := strings.Repeat("a;x=y\r\n0123456789\r\n", 100) + "0\r\n\r\n"
	tests := []struct{ name, asked, answered string }{
		{"long body", asked, fmt.Sprintf("HTTP/1.1 200 OK\r\ncontent-length:%d\r\n\r\n%s", len(long), long)},
		{"chunks", asked, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks},
		{"body that looks like a head", asked, "HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"},
		{"not modified", asked, "HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n"},
		{"no content", asked, "HTTP/1.1 204 No Content\r\n\r\n"},
		{"HEAD", "HEAD / HTTP/1.1\r\nHost: a.example\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"},
		{"interim response", asked, "HTTP/1.1 100 Continue\r\n\r\n" + answered},
		{"pipelined", asked + asked + asked, answered + answered + answered},
		{"upload", "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello", answered},
		{"upload in chunks", "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, answered},
		{"keep-alive", "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n",
			"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := move(t, client4, service4, tt.asked)
			m.serve(t, len(tt.asked), tt.answered)
			m.app.Close()
			if r := m.wantTaken(t); r.SndNxt != m.peer.rcv || r.RcvNxt != m.peer.snd {
				t.Errorf("at %d and %d, want %d and %d", r.SndNxt, r.RcvNxt, m.peer.rcv, m.peer.snd)
			}
		})
	}
}

// A FIN waits for the client's acknowledgment of the response, and is then decided about.
func TestFINWaitsForTheAcknowledgment(t *testing.T) {
	for _, end := range [][2]netip.AddrPort{{client4, service4}, {client6, service6}} {
		t.Run(end[1].Addr().String(), func(t *testing.T) {
			m := closeEarly(t, end[0], end[1])
			if c := m.closes(t); c.Waited == 0 || c.Taken != 0 || c.Passed["unacknowledged"] != 0 {
				t.Errorf("%+v, want a FIN that waits", c)
			}
			m.peer.receive(t, len(answered))
			if r := m.wantTaken(t); r.SndNxt != m.peer.rcv || r.RcvNxt != m.peer.snd {
				t.Errorf("at %d and %d, want %d and %d", r.SndNxt, r.RcvNxt, m.peer.rcv, m.peer.snd)
			}
		})
	}
}

// closeEarly has the application answer and close before the client acknowledges anything.
func closeEarly(t *testing.T, client, service netip.AddrPort) *moving {
	t.Helper()
	m := move(t, client, service, asked)
	if _, err := io.ReadFull(m.app, make([]byte, len(asked))); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(m.app, answered); err != nil {
		t.Fatal(err)
	}
	m.app.Close()
	return m
}

// A request that comes while a FIN waits would be answered with an RST: it is dropped, and its client, which has the
// response, repeats it to the next owner.
func TestWaitingFINKeepsRequestsFromTheSocket(t *testing.T) {
	m := closeEarly(t, client4, service4)
	m.peer.rcv = m.peer.rcv.Add(len(answered))
	m.send(t, client4, service4, m.peer.segment(wire.ACK|wire.PSH, asked))
	m.peer.rcv = m.peer.rcv.Add(-len(answered))
	m.peer.receive(t, len(answered)) // the server's repetition is acknowledged
	if r := m.wantTaken(t); r.RcvNxt != m.peer.snd {
		t.Errorf("received up to %d, want %d", r.RcvNxt, m.peer.snd)
	}
	if c := m.closes(t); c.Held != 1 || m.peer.rst {
		t.Errorf("%+v RST %v, want one segment held", c, m.peer.rst)
	}
}

// Without the acknowledgment a FIN does not wait for ever.
func TestFINPassesThatHasWaitedForLong(t *testing.T) {
	m := closeEarly(t, client4, service4)
	time.Sleep(waitMax)
	m.wantPassed(t, "unacknowledged")
	if c := m.closes(t); c.Waited == 0 {
		t.Errorf("%+v, want a FIN that has waited", c)
	}
}

// A client that closes meanwhile gets the FIN.
func TestWaitingFINPassesWhenTheClientCloses(t *testing.T) {
	m := closeEarly(t, client4, service4)
	m.peer.rcv = m.peer.rcv.Add(len(answered))
	m.peer.send(t, wire.ACK|wire.FIN, "")
	m.wantPassed(t, "request") // its FIN counts as one
}

func TestFINPassesWhileTheClientHasSomethingOpen(t *testing.T) {
	t.Run("half a request", func(t *testing.T) {
		m := move(t, client4, service4, asked)
		m.serve(t, len(asked), answered)
		m.peer.send(t, wire.ACK|wire.PSH, asked[:20])
		io.ReadFull(m.app, make([]byte, 20))
		m.app.Close()
		m.wantPassed(t, "framing")
	})
	t.Run("client has closed", func(t *testing.T) {
		m := move(t, client4, service4, asked)
		m.serve(t, len(asked), answered)
		m.peer.send(t, wire.ACK|wire.FIN, "")
		io.ReadAll(m.app)
		m.app.Close()
		m.peer.receive(t, 1<<30)
		if c := m.closes(t); c.Taken != 0 || c.Passed["request"]+c.Passed["half_closed"] != 1 {
			t.Errorf("%+v", c)
		}
	})
	t.Run("application closes its half", func(t *testing.T) {
		m := move(t, client4, service4, asked)
		m.serve(t, len(asked), answered)
		m.app.(*net.TCPConn).CloseWrite()
		m.wantPassed(t, "half_closed")
	})
}

// What the client may send never goes beyond what the next owner can promise, whatever the kernel would allow.
func TestWindowIsCut(t *testing.T) {
	upload := "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2000000\r\n\r\n"
	m := move(t, client4, service4, upload)
	got := make(chan error, 1)
	go func() {
		_, err := io.ReadFull(m.app, make([]byte, len(upload)+2000000))
		got <- err
	}()
	edge, left := m.rec.RcvEdge, 2000000
	for left > 0 {
		n := min(1400, left, edge.Sub(m.peer.snd))
		if n > 0 {
			m.peer.send(t, wire.ACK, strings.Repeat("u", n))
			left -= n
			continue
		}
		f, ok := m.next(t, answerTimeout)
		if !ok {
			t.Fatal("the server acknowledges no more")
		}
		right := f.Segment.Ack.Add(int(f.Segment.Window) << 7)
		if right.Sub(f.Segment.Ack) > moveWindow || right.Before(edge) {
			t.Fatalf("window %d, edge moves by %d", right.Sub(f.Segment.Ack), right.Sub(edge))
		}
		edge = right
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	m.say(t, answered)
	m.app.Close()
	if r := m.wantTaken(t); r.RcvNxt != m.peer.snd {
		t.Errorf("received up to %d, want %d", r.RcvNxt, m.peer.snd)
	}
}

// An unmodified nginx closes what its keepalive_timeout ends, and what it has when it is told to quit.
func TestNginxIdleConnectionIsTaken(t *testing.T) {
	const nginx = "/usr/sbin/nginx"
	if _, err := os.Stat(nginx); err != nil {
		t.Skip("needs nginx")
	}
	for name, tt := range map[string]struct {
		keepalive string
		quit      bool
	}{"keepalive_timeout": {"100ms", false}, "quit": {"60s", true}} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			dir := t.TempDir()
			config := filepath.Join(dir, "nginx.conf")
			text := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log stderr;
events {} http { access_log off; keepalive_timeout %[2]s; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p;
fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
server { listen 80; location / { return 200 "hello"; } } }`, dir, tt.keepalive)
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			l.start(t, nginx, "-e", "stderr", "-c", config)
			m := &moving{lab: l, im: l.importer(t)}
			m.mover, m.taken = l.mover(t, m.im)
			m.rec = record(client4, service4, asked)
			if err := m.mover.Follow(m.rec, moveWindow); err != nil {
				t.Fatal(err)
			}
			importPatiently(t, m.im, m.rec)
			m.peer = newClient(l, m.rec)
			for !strings.HasSuffix(string(m.peer.got), "hello") {
				m.peer.receive(t, len(m.peer.got)+1)
			}
			if tt.quit {
				l.run(t, "", nginx, "-e", "stderr", "-c", config, "-s", "quit")
			}
			r := m.wantTaken(t)
			if r.SndNxt != m.peer.rcv || r.RcvNxt != m.peer.snd {
				t.Errorf("at %d and %d, want %d and %d", r.SndNxt, r.RcvNxt, m.peer.rcv, m.peer.snd)
			}
		})
	}
}

// importPatiently waits for the listener.
func importPatiently(t *testing.T, im *Importer, r *transfer.Record) {
	t.Helper()
	for end := time.Now().Add(answerTimeout); ; time.Sleep(10 * time.Millisecond) {
		_, err := im.Import(ended(t), r, r.Inc.Service)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}
