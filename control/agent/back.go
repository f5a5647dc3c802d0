package agent

import (
	"errors"
	"slices"
	"time"

	"baton/control/transfer"
	"baton/control/xcf"
)

// stopTime is how long an agent that ends waits for a routing host to say whether it has taken a connection.
const stopTime = 2 * time.Second

// back is a connection of this host on its way back to the routing host that gave it.
type back struct {
	giver  *transfer.Giver
	record transfer.Record
	settle func(left bool) // once
	began  time.Time
	why    transfer.Failure
}

// Back implements Reporter.
func (a *Agent) Back(r transfer.Record, settle func(left bool)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	flow, live := a.taker.Flow(r.Inc)
	if !live || flow.Host == "" || a.stopping.Err() != nil {
		settle(false)
		return
	}
	a.beginBack(&back{record: r, settle: settle}, flow.Host, transfer.Offer{})
}

// beginBack begins to hand a frozen connection back to a routing host; where says what is to become of it there. Called
// with mu held.
func (a *Agent) beginBack(b *back, host string, where transfer.Offer) {
	r := &b.record
	id := a.backID
	a.backID++
	b.began = time.Now()
	where.Inc, where.Epoch, where.MSS, where.Timestamps = r.Inc, r.Epoch, r.Handshake.MSS, r.Handshake.Timestamps
	where.Bytes, where.Hops, where.Job = len(r.Data), r.Hops, r.Job
	b.giver = transfer.NewGiver(transfer.Give{Offer: where, Candidates: []string{host}, First: id,
		Timeouts: transfer.DefaultTimeouts(), Unconditional: true})
	a.backs[id] = b
	a.stepBack(b, transfer.Start{})
}

// stepBack gives the machine of a connection on its way back an event, and does what it says. Called with mu held.
func (a *Agent) stepBack(b *back, e transfer.Event) {
	for events := []transfer.Event{e}; len(events) > 0; events = events[1:] {
		for _, action := range slices.Clone(b.giver.Step(events[0], time.Now())) {
			if next := a.doBack(b, action); next != nil {
				events = append(events, next)
			}
		}
	}
	if b.giver.State().Final() {
		delete(a.backs, b.giver.Transfer())
		poke(a.backOver)
	}
	poke(a.wake)
}

// doBack carries out an action; the event that follows from it is nil if there is none. Called with mu held.
func (a *Agent) doBack(b *back, action transfer.Action) transfer.Event {
	client := b.record.Inc.Client
	switch action := action.(type) {
	case transfer.Freeze: // it was, before
		return a.frozenBack(b)
	case transfer.Send:
		return a.sendBack(action)
	case transfer.Switch:
		a.leave(b)
		a.outcomesBack["taken"]++
		a.log.Debug("connection went back", "client", client, "host", action.Host, "took", time.Since(b.began))
		return transfer.Switched{}
	case transfer.Thaw:
		b.settle(false)
	case transfer.Failed:
		b.why = action.Failure
		a.outcomesBack[action.Cause.String()]++
		a.log.Info("connection does not go back", "client", client, "host", action.Host, "cause", action.Cause,
			"detail", action.Detail)
	case transfer.Abort: // it may have another owner, and nobody says
		b.why = action.Failure
		a.leave(b)
		a.outcomesBack["aborted"]++
		a.log.Warn("connection given up on its way back", "client", client, "host", action.Host, "detail", action.Detail)
	case transfer.Fault:
		a.log.Error("routing host breaks the protocol", "host", action.Host, "detail", action.Detail)
	}
	return nil
}

// sendBack sends a message about a connection on its way back. What surely has not left leaves the connection here: its
// client must not wait for a routing host that knows of nothing.
func (a *Agent) sendBack(s transfer.Send) transfer.Event {
	err := a.dialer.Send(s.Host, xcf.Pack(s.Message))
	assign, begins := s.Message.(transfer.Assign)
	switch {
	case err == nil:
		return nil
	case begins && errors.Is(err, xcf.ErrNotConnected):
		return transfer.Received{Host: s.Host, Message: transfer.Confirm{Transfer: assign.Offer.Transfer,
			Reason: transfer.ReasonHost, Detail: "no stream to the routing host"}}
	}
	return transfer.PeerLost{Host: s.Host}
}

// frozenBack is the record of a connection on its way back. Called with mu held.
func (a *Agent) frozenBack(b *back) transfer.Event {
	record, err := b.record.Encode()
	if err != nil {
		return transfer.Cancel{Detail: err.Error()}
	}
	return transfer.Frozen{Record: record, RcvNxt: b.record.RcvNxt}
}

// leave ends what this host has of a connection that another one owns now. Called with mu held.
func (a *Agent) leave(b *back) {
	b.settle(true)
	for _, action := range slices.Clone(a.taker.Step(transfer.Left{Inc: b.record.Inc}, time.Now())) {
		a.do(action)
	}
}

// answeredBack gives a routing host's answer to the transfer that it is about; false: it is none of these.
func (a *Agent) answeredBack(host string, m transfer.Message) bool {
	var id transfer.ID
	switch m := m.(type) {
	case transfer.Confirm:
		id = m.Transfer
	case transfer.QueryReply:
		id = m.Transfer
	default:
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if b := a.backs[id]; b != nil {
		a.stepBack(b, transfer.Received{Host: host, Message: m})
	}
	return true
}

// allBack gives all connections on their way back an event.
func (a *Agent) allBack(e transfer.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, b := range a.backs {
		a.stepBack(b, e)
	}
}

// deadline is when time is due next; zero: never. Called with mu held.
func (a *Agent) deadline() time.Time {
	first := a.taker.Deadline()
	for _, b := range a.backs {
		if d := b.giver.Deadline(); first.IsZero() || !d.IsZero() && d.Before(first) {
			first = d
		}
	}
	return first
}

// settleBacks waits until it is known what comes of the connections on their way back; no others begin any more. What is not
// known in time may have another owner: it must not be heard from this host again.
func (a *Agent) settleBacks() {
	late := time.After(stopTime)
	for a.backsLeft() > 0 {
		select {
		case <-a.backOver:
		case <-late:
			a.abandonBacks()
		}
	}
}

func (a *Agent) backsLeft() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.backs)
}

func (a *Agent) abandonBacks() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, b := range a.backs {
		why := transfer.Failure{Host: b.giver.Host(), Cause: transfer.CauseNoAnswer, Detail: "the agent ends"}
		a.doBack(b, transfer.Abort{Failure: why})
		delete(a.backs, id)
	}
}
