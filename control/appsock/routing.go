package appsock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"baton/control/admin"
	"baton/control/app"
	"baton/control/router"
	"baton/fastpath/flow"
)

// Router is what Routing tells of its applications. *router.Router implements it.
type Router interface {
	AppWrote(id flow.ID, octets []byte) (room <-chan struct{})
	AppClosed(id flow.ID)
	AppTransfers(id flow.ID, t router.AppTransfer)
	Unregistered(ids []flow.ID)
	Serve(service netip.AddrPort, on bool)
}

// Routing is a routing host's end of control sockets: the Handler of its Server and the Applications of its router. Its
// methods are safe for concurrent use.
type Routing struct {
	host     string
	services map[netip.AddrPort]bool // that are external
	log      *slog.Logger
	router   Router
	notes    *Notes
	ended    chan struct{} // closed when Run returns

	counts Counts

	opening sync.Mutex // held while members change and the router is told, so it hears of changes in their order

	mu      sync.Mutex
	members map[netip.AddrPort][]*Peer // registered, in turn
	serving map[netip.AddrPort]bool    // whose handshakes are answered
	waiting map[netip.AddrPort][]applicant
	conns   map[flow.ID]dealt
	table   []router.TargetStatus
}

// maxDrained bounds how often an application is heard before its wish; its stream holds less than that.
const maxDrained = 1 << 12

// dealt is a connection in an application's hands.
type dealt struct {
	peer   *Peer
	stream *stream
}

// applicant has asked for a registration, which is answered once its service's handshakes are.
type applicant struct {
	peer *Peer
	seq  uint64
}

// NewRouting makes the end for a host whose external services are these. Use sets the router before the first call.
func NewRouting(host string, services []netip.AddrPort, notes *Notes, log *slog.Logger) *Routing {
	a := &Routing{host: host, notes: notes, services: map[netip.AddrPort]bool{}, log: log, members: map[netip.AddrPort][]*Peer{},
		serving: map[netip.AddrPort]bool{}, waiting: map[netip.AddrPort][]applicant{}, conns: map[flow.ID]dealt{},
		ended: make(chan struct{})}
	for _, s := range services {
		a.services[s] = true
	}
	return a
}

// Use says whose applications these are.
func (a *Routing) Use(r Router) { a.router = r }

// Joined implements Handler.
func (a *Routing) Joined(*Peer) {}

// Said implements Handler.
func (a *Routing) Said(p *Peer, m app.Message, files []*os.File) {
	defer closeAll(files)
	switch m.Type {
	case app.TypeRegister:
		a.register(p, m, files)
	case app.TypeGetDPT:
		p.Send(a.tableFor(m.Seq, a.servicesOf(p)))
	case app.TypeTransfer:
		a.transfer(p, m)
	case app.TypeMessage:
		a.notes.send(p, m)
	default:
		p.Error(m.Seq, app.CodeMalformed, "a routing host knows no "+string(m.Type))
	}
}

// Left implements Handler: what the application had is taken back.
func (a *Routing) Left(p *Peer) {
	a.opening.Lock()
	defer a.opening.Unlock()
	a.mu.Lock()
	var empty []netip.AddrPort
	for s, members := range a.members {
		a.members[s] = slices.DeleteFunc(members, func(m *Peer) bool { return m == p })
		a.waiting[s] = slices.DeleteFunc(a.waiting[s], func(r applicant) bool { return r.peer == p })
		if len(members) > 0 && len(a.members[s]) == 0 {
			empty = append(empty, s)
			delete(a.serving, s)
		}
	}
	var orphans []flow.ID
	for id, d := range a.conns {
		if d.peer == p {
			orphans = append(orphans, id)
		}
	}
	a.mu.Unlock()
	a.notes.leave(p) // from here on nobody confirms its registrations
	for _, s := range empty {
		a.router.Serve(s, false)
		a.log.Info("no routing application is left", "service", s)
	}
	a.router.Unregistered(orphans)
}

// register takes an application for a service.
func (a *Routing) register(p *Peer, m app.Message, files []*os.File) {
	service, err := serviceOf(m, files)
	switch {
	case err != nil:
		p.Error(m.Seq, app.CodeMalformed, err.Error())
		return
	case len(m.Name) > app.MaxText:
		p.Error(m.Seq, app.CodeTooLarge, nameTooLong)
		return
	case m.Role != app.RoleRouter:
		p.Error(m.Seq, app.CodeMalformed, "a routing host takes applications with the role router")
		return
	case !a.services[service]:
		p.Error(m.Seq, app.CodeNotAllowed, service.String()+" is no service with application: external")
		return
	case !p.May(service.String()):
		p.Error(m.Seq, app.CodeNotAllowed, "applications.allow does not let this user register for "+service.String())
		return
	case m.Stream == "" && p.udp || m.Stream != "" && !filepath.IsAbs(m.Stream) && m.Stream[0] != '@':
		p.Error(m.Seq, app.CodeMalformed, "no connection can be passed over UDP: stream is the Unix socket at which the "+
			"application takes them, an absolute path or @ and an abstract name")
		return
	}
	a.opening.Lock()
	defer a.opening.Unlock()
	a.mu.Lock()
	p.meets = m.Stream
	p.Name = cmp.Or(m.Name, p.Name)
	first := len(a.members[service]) == 0
	if !slices.Contains(a.members[service], p) {
		a.members[service] = append(a.members[service], p)
	}
	a.waiting[service] = append(a.waiting[service], applicant{p, m.Seq})
	if a.serving[service] {
		a.confirm(service)
	}
	a.mu.Unlock()
	if first {
		a.router.Serve(service, true)
	}
	a.log.Info("routing application is registered", "name", p.Name, "service", service)
}

// Serving implements router.Applications: who waits for it is registered.
func (a *Routing) Serving(service netip.AddrPort) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.serving[service] = len(a.members[service]) > 0
	a.confirm(service)
}

// confirm tells the applications that wait for it that they are registered. Called with mu held.
func (a *Routing) confirm(service netip.AddrPort) {
	for _, r := range a.waiting[service] {
		a.notes.join(r.peer, r.peer.Name, app.RoleRouter, "",
			app.Message{Type: app.TypeRegistered, Seq: r.seq, Host: a.host, Service: service.String()},
			a.tableOf(0, []netip.AddrPort{service}))
	}
	delete(a.waiting, service)
}

// serviceOf reads the service that a registration names, by itself or by a listening socket.
func serviceOf(m app.Message, files []*os.File) (netip.AddrPort, error) {
	if m.Service != "" {
		return netip.ParseAddrPort(m.Service)
	}
	i := slices.Index(m.Files, app.FileListener)
	if i < 0 {
		return netip.AddrPort{}, errors.New("register names no service and has no listener")
	}
	return listenerAddress(files[i])
}

// transfer asks the router for what the application wishes.
func (a *Routing) transfer(p *Peer, m app.Message) {
	id := flow.ID(m.Conn)
	a.mu.Lock()
	mine := a.conns[id].peer == p
	a.mu.Unlock()
	switch {
	case !mine:
		p.Send(app.Message{Type: app.TypeRejected, Seq: m.Seq, Conn: m.Conn, By: "router", Code: app.CodeUnknownConn,
			Detail: "no such connection, or it has ended"})
	case !p.Carries(len(m.State)):
		p.Send(app.Message{Type: app.TypeRejected, Seq: m.Seq, Conn: m.Conn, By: "router", Code: app.CodeTooLarge,
			Detail: fmt.Sprintf("%d octets of state, at most %d over UDP: register at the Unix socket", len(m.State), app.MaxInline)})
	case m.When != "" && m.When != app.Now && m.When != app.Quiescent:
		p.Error(m.Seq, app.CodeMalformed, `when is "now" or "quiescent"`)
	default:
		a.drain(id) // what it said before comes before
		a.router.AppTransfers(id, router.AppTransfer{Job: m.Job, Host: m.Host, State: m.State, From: p.Name,
			Quiescent: m.When == app.Quiescent, Unconditional: m.Unconditional})
	}
}

// servicesOf are those that an application is registered for.
func (a *Routing) servicesOf(p *Peer) (all []netip.AddrPort) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for s, members := range a.members {
		if slices.Contains(members, p) {
			all = append(all, s)
		}
	}
	return all
}

// tableFor is the destination port table of some services.
func (a *Routing) tableFor(seq uint64, services []netip.AddrPort) app.Message {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tableOf(seq, services)
}

// tableOf is tableFor with mu held.
func (a *Routing) tableOf(seq uint64, services []netip.AddrPort) app.Message {
	m := app.Message{Type: app.TypeDPT, Seq: seq}
	for _, t := range a.table {
		if t.Job.Name != "" && slices.Contains(services, t.Job.Service) {
			m.Targets = append(m.Targets, app.Target{Host: t.Host, Job: t.Job.Name, Service: t.Job.Service.String(),
				Ready: t.Unfit == "", Reason: t.Unfit})
		}
	}
	return m
}

// Present implements router.Applications.
func (a *Routing) Present(service netip.AddrPort) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.members[service]) > 0
}

// Open implements router.Applications: connections are dealt out in turn.
func (a *Routing) Open(id flow.ID, client, service netip.AddrPort, from router.Origin) router.Stream {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.confirm(service) // an lcore serves already, and the others are about to: registered is the first that is heard
	p, s, files := a.deal(service, id, len(from.State))
	if p == nil {
		return nil
	}
	a.conns[id] = dealt{p, s}
	m := app.Message{Type: app.TypeConnection, Conn: uint64(id), Client: client.String(), Service: service.String(),
		State: from.State}
	if len(files) > 0 {
		m.Files = []string{app.FileConnection}
	}
	if from.Host != "" {
		m.From = &app.Party{Host: from.Host, Name: from.Name}
	}
	p.Send(m, files...)
	go a.listen(id, s)
	return s
}

// deal makes a connection's stream to the application whose turn it is, or else the next one; nil: nobody takes it. Who does
// not listen any more for streams has left, and need not be waited for until its lease is over. Called with mu held.
func (a *Routing) deal(service netip.AddrPort, id flow.ID, state int) (*Peer, *stream, []*os.File) {
	for range a.members[service] {
		p := a.next(service, state)
		if p == nil {
			break
		}
		s, files, err := openStream(p, id)
		if err == nil {
			return p, s, files
		}
		a.log.Error("no stream for a routing application", "name", p.Name, "error", err)
		p.Error(0, app.CodeNotAllowed, err.Error())
		if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT) {
			p.hangUp()
		}
	}
	return nil, nil, nil
}

// next is the application whose turn it is, among those that can be told so many octets of state. Called with mu held.
func (a *Routing) next(service netip.AddrPort, state int) *Peer {
	members := a.members[service]
	i := slices.IndexFunc(members, func(p *Peer) bool { return p.Carries(state) })
	if i < 0 {
		return nil
	}
	p := members[i]
	copy(members[i:], members[i+1:])
	members[len(members)-1] = p
	return p
}

// openStream makes a connection's stream to an application: one that it is passed, or takes where it listens.
func openStream(p *Peer, id flow.ID) (*stream, []*os.File, error) {
	if p.meets != "" {
		s, err := meetStream(p.meets, p.right.UID, uint64(id))
		return s, nil, err
	}
	s, theirs, err := newStream()
	return s, []*os.File{theirs}, err
}

// listen brings what an application says to the router, until it or the router lets go.
func (a *Routing) listen(id flow.ID, s *stream) {
	for {
		if !s.wait() { // the router has let go
			return
		}
		room, err := a.hear(id, s)
		switch {
		case errors.Is(err, io.EOF):
			a.router.AppClosed(id)
			return
		case err == nil:
			select {
			case <-room:
			case <-a.ended:
				return
			}
		}
	}
}

// hear takes the next octets of an application, if there are any, to the router. The lock keeps them in order.
func (a *Routing) hear(id flow.ID, s *stream) (room <-chan struct{}, err error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	b, err := s.read()
	if err != nil {
		return nil, err
	}
	return a.router.AppWrote(id, b), nil
}

// drain hears what an application has said up to now.
func (a *Routing) drain(id flow.ID) {
	a.mu.Lock()
	s := a.conns[id].stream
	a.mu.Unlock()
	if s == nil { // it ended meanwhile
		return
	}
	for range maxDrained {
		if _, err := a.hear(id, s); err != nil {
			return
		}
	}
}

// take forgets a connection and returns whose it was.
func (a *Routing) take(id flow.ID) *Peer {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.conns[id].peer
	delete(a.conns, id)
	return p
}

// Accepted implements router.Applications.
func (a *Routing) Accepted(id flow.ID, host string) {
	if p := a.take(id); p != nil {
		a.mu.Lock()
		p.taken++
		a.mu.Unlock()
		p.Send(app.Message{Type: app.TypeAccepted, Conn: uint64(id), Host: host})
	}
}

// Ended implements router.Applications.
func (a *Routing) Ended(id flow.ID, why string) {
	if p := a.take(id); p != nil {
		p.Send(app.Message{Type: app.TypeEnded, Conn: uint64(id), Detail: why})
	}
}

// Rejected implements router.Applications.
func (a *Routing) Rejected(id flow.ID, why router.Rejection) {
	a.mu.Lock()
	p := a.conns[id].peer
	a.mu.Unlock()
	if p != nil {
		p.Send(app.Message{Type: app.TypeRejected, Conn: uint64(id), By: why.By, Code: why.Code, Detail: why.Detail})
	}
}

// Table implements router.Applications.
func (a *Routing) Table(rows []router.TargetStatus) {
	a.mu.Lock()
	a.table = rows
	var peers []*Peer
	for _, members := range a.members {
		for _, p := range members {
			if !slices.Contains(peers, p) {
				peers = append(peers, p)
			}
		}
	}
	a.mu.Unlock()
	for _, p := range peers {
		p.Send(a.tableFor(0, a.servicesOf(p)))
	}
}

// Registered lists the applications, for operators. What is open and taken is that of all services of an application.
func (a *Routing) Registered() []admin.Application {
	a.mu.Lock()
	defer a.mu.Unlock()
	open := map[*Peer]int{}
	for _, d := range a.conns {
		open[d.peer]++
	}
	list := []admin.Application{}
	for s, members := range a.members {
		for _, p := range members {
			list = append(list, admin.Application{Name: p.Name, Role: string(app.RoleRouter), Service: s.String(), Since: p.since,
				Open: open[p], Taken: p.taken})
		}
	}
	sortApplications(list)
	return list
}

// sortApplications brings what maps gave into an order: by service and job, the oldest first.
func sortApplications(list []admin.Application) {
	slices.SortFunc(list, func(x, y admin.Application) int {
		return cmp.Or(cmp.Compare(x.Service, y.Service), cmp.Compare(x.Job, y.Job), x.Since.Compare(y.Since))
	})
}

// Run serves control sockets until ctx ends.
func (a *Routing) Run(ctx context.Context, at Sockets) error {
	defer close(a.ended)
	return (&Server{Rights: at.Rights, Handler: a, Log: a.log, Counts: &a.counts}).Run(ctx, at)
}

// Counters are what operators see of control sockets.
func (a *Routing) Counters() []admin.Counter { return a.counts.Counters() }
