package router

import (
	"net/netip"
	"time"

	"baton/control/inspect"
)

// Passwords checks passwords, away from the loop. *password.Pool implements it.
type Passwords interface {
	// Check begins to check the login of a client, and calls answer once from another goroutine, in bounded time. It does
	// not block: it reports false, and does nothing, if too much is to be checked already.
	Check(login inspect.Login, client netip.AddrPort, answer func(inspect.Outcome)) bool
}

// check is a login of a connection on which its decision waits.
type check struct {
	outcome inspect.Outcome
	at      time.Time // when the routing application is told; zero: the outcome is not there yet
}

// ask has a password checked, once for each time that the routing application asks. What the client says meanwhile is
// kept, and acknowledged, because it may take long. The client gets a new time, which it needs after a wrong password.
func (r *Router) ask(c *conn, login inspect.Login) {
	if c.check != nil {
		return
	}
	k := &check{}
	c.check, c.by = k, r.now.Add(c.service.RequestTimeout)
	answer := func(o inspect.Outcome) { r.post(event{kind: call, call: func() { r.checked(c, k, o) }}) }
	if p := c.service.Passwords; p == nil || !p.Check(login, c.inc.Client, answer) {
		r.checked(c, k, inspect.Failed)
	}
	r.act(c, c.tcp.AckNow(r.now))
}

// checked takes the outcome of a check. Who guesses has to wait for it.
func (r *Router) checked(c *conn, k *check, o inspect.Outcome) {
	k.outcome, k.at = o, r.now
	switch o {
	case inspect.Right:
		r.count.PasswordsRight++
	case inspect.Wrong:
		r.count.PasswordsWrong++
		k.at = r.now.Add(c.service.WrongDelay)
		r.log.Info("wrong password", "client", c.inc.Client, "service", c.inc.Service)
	case inspect.Failed:
		r.count.PasswordsFailed++
	}
	r.arm(c)
}

// answer lets the routing application go on with the outcome of a check.
func (r *Router) answer(c *conn) {
	outcome := c.check.outcome
	c.check, c.by = nil, r.now.Add(c.service.RequestTimeout)
	c.session.(inspect.Asker).Answer(outcome) // nobody else asks
	r.advance(c)
}
