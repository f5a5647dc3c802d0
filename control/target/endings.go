package target

import (
	"os"
	"slices"

	"baton/control/transfer"
	"baton/fastpath/wire"
)

// restoreFlows reads the flows of an earlier agent from its pins, if there are any. Of those of one tuple the newest
// is the one that a socket belongs to; the others have ended. So has one whose import was cut short, as far as
// anybody can tell: it may have been made, and have ended since.
func restoreFlows(namespace, dir string) (live []liveFlow, ended []Flow, err error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, nil, nil
	}
	known, err := openFlows(dir)
	if err != nil {
		return nil, nil, err
	}
	defer known.Close()
	flows, err := known.all()
	if err != nil {
		return nil, nil, err
	}
	sockets, err := openDiagIn(namespace)
	if err != nil {
		return nil, flows, err
	}
	defer sockets.Close()
	slices.SortFunc(flows, func(x, y Flow) int { return y.Since.Compare(x.Since) })
	seen := make(map[wire.Tuple]bool)
	for _, f := range flows {
		socket, err := sockets.Lookup(f.Inc.Tuple)
		if err != nil {
			return nil, nil, err
		}
		if seen[f.Inc.Tuple] || over(socket.State) {
			ended = append(ended, f)
		} else {
			live = append(live, liveFlow{Flow: f, netns: namespace, cookie: socket.Cookie})
		}
		seen[f.Inc.Tuple] = true
	}
	return live, ended, nil
}

func openDiagIn(namespace string) (d *diag, err error) {
	ns, err := OpenNamespace(namespace)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	err = ns.Do(func() error {
		d, err = openDiag()
		return err
	})
	return d, err
}

// over reports whether a connection in this state needs its client's segments no more. TIME-WAIT only repeats the last
// ACK, and the routing host's entry lingers for that.
func over(s SocketState) bool { return s == None || s == TimeWait }

// socketEnded takes the kernel's report from a namespace. Most are of sockets that are none of ours.
func (a *Agent) socketEnded(namespace string, e Socket) {
	switch client := e.Tuple.Client; {
	case e == Socket{}:
		a.log.Info("the kernel's reports came faster than they were read; comparing", "netns", namespace)
		a.reconcile(namespace)
	case client.Port() != 0:
		a.checkEnd(e.Tuple)
	case client.Addr().IsUnspecified():
		poke(a.lookNow) // a listener
	default:
		a.checkEnd(a.tupleOf(e.Cookie)) // aborted
	}
}

// tupleOf is the tuple of a flow by its socket; the zero one if it is none of ours.
func (a *Agent) tupleOf(cookie uint64) wire.Tuple {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cookies[cookie]
}

// hold takes a flow into the tables. Called with mu held.
func (a *Agent) hold(f liveFlow) {
	a.drop(f.Inc.Tuple)
	a.live[f.Inc.Tuple] = f
	if f.cookie != 0 {
		a.cookies[f.cookie] = f.Inc.Tuple
	}
}

// drop takes the flow of a tuple, if there is one, out of the tables. Called with mu held.
func (a *Agent) drop(t wire.Tuple) {
	delete(a.cookies, a.live[t].cookie)
	delete(a.live, t)
	delete(a.leaving, t)
}

// checkEnd ends the flow of a tuple if its socket is gone. The pins keep it until the machine forgets it.
func (a *Agent) checkEnd(t wire.Tuple) {
	if ended := a.ended(t); ended != nil {
		a.step(*ended)
	}
}

func (a *Agent) ended(t wire.Tuple) *transfer.Ended {
	a.mu.Lock()
	defer a.mu.Unlock()
	flow, ours := a.live[t]
	if !ours {
		return nil
	}
	if s := a.spaces[flow.netns]; s != nil {
		socket, err := s.importer.Lookup(t)
		if err != nil {
			a.log.Error("socket cannot be looked up", "client", t.Client, "error", err)
			return nil
		}
		if socket.State == FinWait2 {
			a.leaving[t] = true // of one that has shrunk the kernel does not report the end
		}
		if !over(socket.State) {
			return nil
		}
	}
	a.drop(t)
	return &transfer.Ended{Inc: flow.Inc}
}

// followLeaving looks after the sockets whose end the kernel will not report.
func (a *Agent) followLeaving() {
	a.mu.Lock()
	leaving := make([]wire.Tuple, 0, len(a.leaving))
	for t := range a.leaving {
		leaving = append(leaving, t)
		delete(a.leaving, t)
	}
	a.mu.Unlock()
	for _, t := range leaving {
		a.checkEnd(t)
	}
}

// reconcile compares a namespace's flows with the kernel's sockets.
func (a *Agent) reconcile(namespace string) {
	a.mu.Lock()
	candidates := make([]wire.Tuple, 0, len(a.live))
	for t, f := range a.live {
		if f.netns == namespace {
			candidates = append(candidates, t)
		}
	}
	a.mu.Unlock()
	for _, t := range candidates {
		a.checkEnd(t)
	}
}
