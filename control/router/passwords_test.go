package router

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"baton/control/inspect"
	"baton/control/transfer"
	"baton/fastpath/wire"
)

// porter checks passwords when the test says so.
type porter struct {
	full   bool
	logins []inspect.Login
	client netip.AddrPort
	answer func(inspect.Outcome)
}

// Check implements Passwords.
func (p *porter) Check(l inspect.Login, client netip.AddrPort, answer func(inspect.Outcome)) bool {
	if p.full {
		return false
	}
	p.logins, p.client, p.answer = append(p.logins, l), client, answer
	return true
}

const wrongDelay = 2 * time.Second

// guarded is a world whose service asks for passwords, twice at most, and a client that has been greeted.
func guarded(t *testing.T) (*world, *client, *porter) {
	t.Helper()
	w, p := newWorld(t), &porter{}
	w.cluster.reply["t1"] = willing
	pop3, err := inspect.NewPOP3(inspect.UserConfig{Default: "web-a", Attempts: 2})
	if err != nil {
		t.Fatal(err)
	}
	s := w.router.services[service]
	s.NewSession = func() inspect.Session { return pop3.Session(window) }
	s.Passwords, s.WrongDelay = p, wrongDelay
	c := w.connect(4000)
	c.segment(wire.ACK, "")
	c.got = nil
	return w, c, p
}

// wantTold checks what the client was told since the last time.
func (c *client) wantTold(want string) {
	c.w.t.Helper()
	if string(c.got) != want {
		c.w.t.Errorf("client was told %q, want %q", c.got, want)
	}
	c.got = nil
}

const annPlain = "AUTH PLAIN AGFubgB4\r\n" // ann with the password x

func TestConnectionWaitsForItsPassword(t *testing.T) {
	w, c, p := guarded(t)
	c.send("USER ann\r\n")
	c.wantTold("+OK\r\n")
	c.send("PASS x\r\n")
	c.send("STAT\r\n")
	w.advance(9 * time.Second)
	if _, offered := last[transfer.Offer](w.cluster, "t1"); offered || len(p.logins) != 1 || p.client != c.inc.Client {
		t.Fatalf("offered %t, logins %v of %v", offered, p.logins, p.client)
	}
	if l := p.logins[0]; l.User != "ann" || string(l.Password) != "x" || l.Attempt != 1 {
		t.Errorf("login of %q, attempt %d", l.User, l.Attempt)
	}
	c.wantTold("")
	p.answer(inspect.Right)
	w.run()
	w.wantGiven(c, "t1")
	if rec := w.record(); string(rec.Data) != "PASS x\r\nSTAT\r\n" {
		t.Errorf("record carries %q", rec.Data)
	}
	if w.router.count.PasswordsRight != 1 {
		t.Errorf("%+v", w.router.count)
	}
}

func TestWrongPasswordIsToldAfterAWhile(t *testing.T) {
	w, c, p := guarded(t)
	c.send(annPlain)
	p.answer(inspect.Wrong)
	w.advance(wrongDelay - time.Millisecond)
	c.wantTold("")
	w.advance(time.Millisecond)
	c.wantTold("-ERR [AUTH] wrong user or password\r\n")
	w.advance(9 * time.Second) // a new time
	c.send(annPlain)
	p.answer(inspect.Right)
	w.run()
	w.wantGiven(c, "t1")
	if n := w.router.count; n.PasswordsWrong != 1 || n.PasswordsRight != 1 || len(p.logins) != 2 {
		t.Errorf("%+v, %d logins", n, len(p.logins))
	}
}

func TestGuessesAreBounded(t *testing.T) {
	w, c, p := guarded(t)
	for range 2 {
		c.send(annPlain)
		p.answer(inspect.Wrong)
		w.advance(wrongDelay)
	}
	c.wantTold(strings.Repeat("-ERR [AUTH] wrong user or password\r\n", 2))
	if !c.fin || !slices.Equal(w.seen.refused, []string{"denied"}) || len(w.seen.ended) != 0 {
		t.Errorf("fin %t, refused %v, transfers %v", c.fin, w.seen.refused, w.seen.ended)
	}
	c.finish()
	w.advance(5 * time.Second)
	w.wantEmpty()
}

func TestPasswordsThatCannotBeCheckedAreRefused(t *testing.T) {
	for name, fail := range map[string]func(w *world, c *client, p *porter){
		"the check fails":      func(_ *world, c *client, p *porter) { c.send(annPlain); p.answer(inspect.Failed) },
		"too many checks":      func(_ *world, c *client, p *porter) { p.full = true; c.send(annPlain) },
		"nobody checks at all": func(w *world, c *client, _ *porter) { w.router.services[service].Passwords = nil; c.send(annPlain) },
	} {
		t.Run(name, func(t *testing.T) {
			w, c, p := guarded(t)
			fail(w, c, p)
			w.run()
			c.wantTold("-ERR [SYS/TEMP] passwords cannot be checked now\r\n")
			if w.router.count.PasswordsFailed != 1 || len(w.seen.ended) != 0 || c.fin {
				t.Errorf("%+v, transfers %v, fin %t", w.router.count, w.seen.ended, c.fin)
			}
		})
	}
}

func TestNobodyWaitsForeverForAPassword(t *testing.T) {
	w, c, p := guarded(t)
	c.send(annPlain)
	w.advance(10 * time.Second)
	c.wantTold("-ERR no user within the time\r\n")
	p.answer(inspect.Right)
	w.run()
	c.finish()
	w.advance(5 * time.Second)
	if len(w.seen.ended) != 0 || !slices.Equal(w.seen.refused, []string{"timeout"}) {
		t.Errorf("refused %v, transfers %v", w.seen.refused, w.seen.ended)
	}
	w.wantEmpty()
}

func TestClientThatIsGoneNeedsNoPassword(t *testing.T) {
	for _, o := range []inspect.Outcome{inspect.Right, inspect.Wrong, inspect.Failed} {
		w, c, p := guarded(t)
		c.send(annPlain)
		c.segment(wire.RST|wire.ACK, "")
		p.answer(o)
		w.advance(5 * time.Second)
		if len(w.seen.ended) != 0 || len(c.got) != 0 {
			t.Errorf("%d: transfers %v, told %q", o, w.seen.ended, c.got)
		}
		w.wantEmpty()
	}
}
