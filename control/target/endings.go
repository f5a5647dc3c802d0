package target

import (
	"os"
	"slices"

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
func (k *Kernel) socketEnded(namespace string, e Socket) {
	switch client := e.Tuple.Client; {
	case e == Socket{}:
		k.log.Info("the kernel's reports came faster than they were read; comparing", "netns", namespace)
		k.reconcile(namespace)
	case client.Port() != 0:
		k.checkEnd(e.Tuple)
	case client.Addr().IsUnspecified():
		k.to.LookAgain() // a listener
	default:
		k.checkEnd(k.tupleOf(e.Cookie)) // aborted
	}
}

// tupleOf is the tuple of a flow by its socket; the zero one if it is none of ours.
func (k *Kernel) tupleOf(cookie uint64) wire.Tuple {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.cookies[cookie]
}

// hold takes a flow into the tables. Called with mu held.
func (k *Kernel) hold(f liveFlow) {
	k.drop(f.Inc.Tuple)
	k.live[f.Inc.Tuple] = f
	if f.cookie != 0 {
		k.cookies[f.cookie] = f.Inc.Tuple
	}
}

// drop takes the flow of a tuple, if there is one, out of the tables. Called with mu held.
func (k *Kernel) drop(t wire.Tuple) {
	delete(k.cookies, k.live[t].cookie)
	delete(k.live, t)
	delete(k.leaving, t)
}

// checkEnd ends the flow of a tuple if its socket is gone. The pins keep it until the machine forgets it.
func (k *Kernel) checkEnd(t wire.Tuple) {
	if ended := k.ended(t); ended != nil {
		k.to.Ended(*ended)
	}
}

func (k *Kernel) ended(t wire.Tuple) *wire.Incarnation {
	k.mu.Lock()
	defer k.mu.Unlock()
	flow, ours := k.live[t]
	if !ours {
		return nil
	}
	s := k.spaces[flow.netns]
	if s != nil {
		socket, err := s.importer.Lookup(t)
		if err != nil {
			k.log.Error("socket cannot be looked up", "client", t.Client, "error", err)
			return nil
		}
		if socket.State == FinWait2 {
			k.leaving[t] = true // of one that has shrunk the kernel does not report the end
		}
		if !over(socket.State) {
			return nil
		}
	}
	k.drop(t)
	k.unfollow(s, flow.Inc)
	return &flow.Inc
}

// followLeaving looks after the sockets whose end the kernel will not report.
func (k *Kernel) followLeaving() {
	k.mu.Lock()
	leaving := make([]wire.Tuple, 0, len(k.leaving))
	for t := range k.leaving {
		leaving = append(leaving, t)
		delete(k.leaving, t)
	}
	k.mu.Unlock()
	for _, t := range leaving {
		k.checkEnd(t)
	}
}

// reconcile compares a namespace's flows with the kernel's sockets.
func (k *Kernel) reconcile(namespace string) {
	k.mu.Lock()
	candidates := make([]wire.Tuple, 0, len(k.live))
	for t, f := range k.live {
		if f.netns == namespace {
			candidates = append(candidates, t)
		}
	}
	k.mu.Unlock()
	for _, t := range candidates {
		k.checkEnd(t)
	}
}
