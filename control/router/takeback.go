package router

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"baton/control/inspect"
	"baton/control/tcp"
	"baton/control/timer"
	"baton/control/transfer"
	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// takeBack is how connections come back: the routing host's Taker, and what it is working on. The router is then their
// owner like that of a new connection, because only an endpoint of its own can finish what the giver left unsent.
type takeBack struct {
	taker *transfer.Taker
	timer timer.Timer
	takes map[wire.Incarnation]*take
	early map[wire.Incarnation]transfer.Received // given on before the forwarder has switched them
	// young is until when givers may wait for an answer that an earlier process of this host owes them.
	young time.Time
}

// take is a connection that a target host hands back, until the router has it or has refused it.
type take struct {
	host    string
	offer   transfer.Offer
	rec     transfer.Record // imported; its data is the endpoint's
	tcp     *tcp.Conn       // nil before the import
	window  uint32
	started time.Time
}

// unsentPatience is how long a client may take to acknowledge any of what a giver has left unsent.
const unsentPatience = 2 * time.Minute

// maxTakes bounds what may be coming back at once.
const maxTakes = 1024

func newTakeBack(now time.Time) takeBack {
	return takeBack{
		taker: transfer.NewTaker(transfer.DefaultLimits(), nil, nil, now),
		takes: map[wire.Incarnation]*take{},
		early: map[wire.Incarnation]transfer.Received{},
		young: now.Add(transfer.DefaultTimeouts().GiveUp),
	}
}

// handsBack takes a target host's offer of a connection, or its question what became of one. A process that has just
// begun does not know what an earlier one took: it cannot say that it never will have.
func (r *Router) handsBack(t *target, m transfer.Message) {
	if q, ok := m.(transfer.Query); ok && r.now.Before(r.back.young) && !r.back.taker.Knows(t.name, q.Transfer) {
		r.say(t, transfer.QueryReply{Transfer: q.Transfer, Inc: q.Inc, State: transfer.FlowReserved})
		return
	}
	if a, ok := m.(transfer.Assign); ok && r.handing[a.Offer.Inc] != nil {
		r.back.early[a.Offer.Inc] = transfer.Received{Host: t.name, Message: m} // the host's own transfer is not through
		return
	}
	r.stepTaker(transfer.Received{Host: t.name, Message: m})
}

// stepTaker gives the Taker an event and does what it says.
func (r *Router) stepTaker(e transfer.Event) {
	for _, a := range slices.Clone(r.back.taker.Step(e, r.now)) { // actions lead to further steps
		switch a := a.(type) {
		case transfer.Send:
			if t := r.targets[a.Host]; t != nil {
				r.say(t, a.Message)
			}
		case transfer.Check:
			r.checkTake(a)
		case transfer.Import:
			r.importTake(a)
		case transfer.StopImport:
			r.refuseTake(r.back.takes[a.Inc], transfer.ReasonHost, "the forwarder did not answer")
		case transfer.Lapsed:
			maps.DeleteFunc(r.back.takes, func(_ wire.Incarnation, k *take) bool {
				return k.host == a.Host && k.offer.Transfer == a.Transfer
			})
		}
	}
	r.timers.Set(&r.back.timer, r.back.taker.Deadline())
}

// checkTake decides whether a connection can come back.
func (r *Router) checkTake(c transfer.Check) {
	inc := c.Offer.Inc
	k := &take{host: c.Host, offer: c.Offer, started: r.now}
	r.back.takes[inc] = k
	r.stepTaker(transfer.Asked{Host: c.Host, Transfer: c.Offer.Transfer})
	r.answerCheck(k)
}

func (r *Router) answerCheck(k *take) {
	reason, detail := r.unfitTake(k)
	if reason != transfer.ReasonNone {
		r.drop(k, reason, detail)
	}
	r.stepTaker(transfer.Checked{Host: k.host, Transfer: k.offer.Transfer, Reason: reason, Detail: detail})
}

// drop forgets a connection that does not come back.
func (r *Router) drop(k *take, reason transfer.Reason, detail string) {
	delete(r.back.takes, k.offer.Inc)
	r.count.BackRefused++
	r.log.Info("connection not taken back", "client", k.offer.Inc.Client, "service", k.offer.Inc.Service, "from", k.host,
		"reason", reason, "detail", detail)
}

// unfitTake says why a connection cannot come back; what cannot go on is refused here, so that the giver keeps it.
func (r *Router) unfitTake(k *take) (transfer.Reason, string) {
	o, s := &k.offer, r.services[k.offer.Inc.Service]
	switch {
	case s == nil || s.Distribution.Conventional():
		return transfer.ReasonHost, fmt.Sprintf("%s is not content-routed here", o.Inc.Service)
	case o.Hops > transfer.MaxHops:
		return transfer.ReasonHops, fmt.Sprintf("%d owners have passed it on without a word to or from the client, more than %d",
			o.Hops, transfer.MaxHops)
	case len(r.conns)+len(r.back.takes) > r.cfg.MaxConns, len(r.back.takes) > maxTakes:
		return transfer.ReasonCapacity, fmt.Sprintf("%d connections", len(r.conns))
	case o.From == "" && !s.Reroute:
		return transfer.ReasonHost, fmt.Sprintf("connections to %s do not come back at their close: set reroute: per-request",
			o.Inc.Service)
	case o.Job != "":
		_, why := r.fitFor(k, s)
		return why.reason, why.detail
	case !s.External && len(o.State) > 0:
		return transfer.ReasonHost, "the routing application is built in, and takes no application state"
	case !s.External && s.Greets:
		return transfer.ReasonHost, "the routing application begins with a greeting, and cannot go on"
	case s.External && !r.cfg.Applications.Present(s.Address):
		return transfer.ReasonNotListening, "no routing application is registered"
	}
	return transfer.ReasonNone, ""
}

// problem is why a connection cannot go on.
type problem struct {
	reason transfer.Reason
	detail string
}

// fitFor finds the hosts at which a connection can go on: not at its giver, unless that is named.
func (r *Router) fitFor(k *take, s *Service) ([]string, problem) {
	hosts, known := r.cfg.Jobs[k.offer.Job]
	switch {
	case !known:
		return nil, problem{transfer.ReasonUnknownJob, fmt.Sprintf("no job %q in the configuration", k.offer.Job)}
	case k.offer.Host != "" && !slices.Contains(hosts, k.offer.Host):
		return nil, problem{transfer.ReasonUnknownJob, fmt.Sprintf("job %q has no host %q", k.offer.Job, k.offer.Host)}
	}
	fit, why := r.candidates(k.offer.Job, s)
	fit = slices.DeleteFunc(fit, func(h string) bool {
		return k.offer.Host != "" && h != k.offer.Host || k.offer.Host == "" && h == k.host
	})
	if len(fit) == 0 {
		return nil, problem{transfer.ReasonNotListening, "no other host takes it: " + why}
	}
	return fit, problem{}
}

// importTake makes the endpoint and has the forwarder punt to it. The window is as large as the client was promised.
func (r *Router) importTake(i transfer.Import) {
	k := r.back.takes[i.Record.Inc]
	k.rec = i.Record
	way := r.past.way(k.rec.Inc)
	if !way.known() && len(k.rec.SendData) > 0 {
		r.refuseTake(k, transfer.ReasonHost, "the way to the client is not known here any more, and there is something to send")
		return
	}
	// An edge that the client knows never goes back, although windows are rounded down.
	promised := uint32(max(0, k.rec.RcvEdge.Sub(k.rec.ReadFrom))) + 1<<k.rec.Handshake.RcvScale - 1
	k.window = max(r.services[k.rec.Inc.Service].Window, promised)
	if k.window > transfer.MaxData {
		r.refuseTake(k, transfer.ReasonWindow, fmt.Sprintf("the client was promised %d octets, more than %d: set "+
			"TCP_WINDOW_CLAMP on the listening socket", k.window, transfer.MaxData))
		return
	}
	var err error
	if k.tcp, err = tcp.Import(k.rec, k.window, r.now); err != nil {
		r.refuseTake(k, transfer.ReasonImport, err.Error())
		return
	}
	inc, from := k.rec.Inc, r.targets[k.host].owner
	r.command(func() error { return r.dp.Adopt(way.port, inc, from) })
}

// refuseTake ends an import that came to nothing.
func (r *Router) refuseTake(k *take, reason transfer.Reason, detail string) {
	if k == nil {
		return
	}
	r.drop(k, reason, detail)
	r.stepTaker(transfer.NotImported{Host: k.host, Transfer: k.offer.Transfer, Reason: reason, Detail: detail})
}

// adopted makes the connection: the router owns it from here on.
func (r *Router) adopted(p *flow.Punt) {
	k := r.back.takes[p.Inc]
	switch {
	case k == nil || k.tcp == nil:
		if p.Flow != 0 {
			r.forget(p.Flow) // too late: its owner gets an entry when its client is heard of
		}
		return
	case p.Flow == 0:
		r.refuseTake(k, transfer.ReasonLeftover, "the connection is not that host's here, or there is no room for it")
		return
	}
	delete(r.back.takes, p.Inc)
	s, way := r.services[p.Inc.Service], r.past.way(p.Inc)
	c := &conn{
		id: p.Flow, inc: p.Inc, shake: k.rec.Handshake, service: s, session: s.NewSession(), tcp: k.tcp, window: k.window,
		port: way.port, peer: way.peer, by: r.now.Add(s.RequestTimeout), taken: &k.offer, giver: k.host,
	}
	c.timer.Fire = func(time.Time) { r.due(c) }
	r.conns[c.id] = c
	if c.idle = len(k.rec.Data) == 0 && k.offer.From == ""; c.idle {
		c.by = r.now.Add(s.IdleTimeout)
	}
	if c.unsent = c.tcp.Queued(); k.offer.Job != "" {
		c.by = r.now.Add(unsentPatience)
	}
	r.count.TakenBack++
	if t := r.targets[k.host]; t.active > 0 {
		t.active--
	}
	r.stepTaker(transfer.Imported{Host: k.host, Transfer: k.offer.Transfer, RcvNxt: k.rec.RcvNxt, Took: r.now.Sub(k.started)})
	r.log.Info("connection taken back", "client", c.inc.Client, "service", c.inc.Service, "from", k.host,
		"application", k.offer.From, "job", k.offer.Job, "hops", k.offer.Hops, "bytes", len(k.rec.Data),
		"unsent", c.tcp.Queued())
	r.resume(c)
}

// resume goes on with a connection: to the job that its giver named, or with the routing application.
func (r *Router) resume(c *conn) {
	if c.taken.Job == "" {
		r.reconsider(c)
	}
	if c.tcp.Queued() > 0 {
		r.act(c, c.tcp.Announce(r.now))
	}
	if c.stage != over {
		r.advance(c)
	}
}

// reconsider gives a connection to the routing application of its service.
func (r *Router) reconsider(c *conn) {
	o := c.taken
	if c.service.External && !r.attach(c, Origin{Host: c.giver, Name: o.From, State: o.State}) {
		r.unavailable(c)
	}
	c.taken = nil
}

// passOn hands a connection that came back to the job that its giver named, once the client has everything: a kernel
// could not repeat it.
func (r *Router) passOn(c *conn) {
	if left := c.tcp.Queued(); left > 0 {
		if left < c.unsent {
			c.unsent, c.by = left, r.now.Add(unsentPatience)
		}
		return
	}
	o := c.taken
	fit, why := r.fitFor(&take{host: c.giver, offer: *o}, c.service)
	if len(fit) == 0 {
		r.stranded(c, why.detail)
		return
	}
	r.handTo(c, fit, choice{job: o.Job, state: o.State, from: o.From, fromHost: c.giver})
}

// stranded goes on with a connection that nobody took and that its giver does not have any more: the routing application
// decides again, or refuses the client if it is built in.
func (r *Router) stranded(c *conn, why string) {
	r.log.Info("connection cannot be passed on", "client", c.inc.Client, "service", c.inc.Service, "job", c.taken.Job,
		"detail", why)
	c.stage, c.handover = reading, nil
	c.by = r.now.Add(c.service.RequestTimeout)
	if c.service.External {
		r.reconsider(c)
		if c.stage == reading {
			r.relay(c)
		}
		return
	}
	c.taken = nil
	r.refuse(c, inspect.Unavailable, c.session.Refusal(inspect.Unavailable))
}

// left tells the Taker that a connection which came back is not here any more, and goes on with one that has waited for
// that.
func (r *Router) left(inc wire.Incarnation) {
	r.stepTaker(transfer.Left{Inc: inc})
	if early, ok := r.back.early[inc]; ok {
		delete(r.back.early, inc)
		r.stepTaker(early)
	}
}
