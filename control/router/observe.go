package router

import (
	"context"
	"net/netip"

	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// Counts are the router's own totals since start.
type Counts struct {
	Opened          uint64 // connections taken
	Refused         uint64 // of which answered with an error
	Transferred     uint64 // of which handed to a target
	Reset           uint64 // of which ended by a RST or because the client fell silent
	Aborted         uint64 // of which reset because a target was not heard of after the commit
	Vanished        uint64 // of which the forwarder gave up (idle, or a new incarnation)
	TableFull       uint64 // not taken: as many connections as configured
	Repeated        uint64 // not taken: the router had the connection before
	UnknownServices uint64 // punts for a service that is not configured
	UnknownFlows    uint64 // segments of flows that the router does not have: its First was lost
	BadFrames       uint64 // punted frames that do not parse
	ICMPErrors      uint64 // about segments of the router's connections
	Exceptions      uint64 // frames given to the host's kernel
	ExceptionsLost  uint64 // frames that it did not take
	KernelFrames    uint64 // frames that the host's kernel sent
	FramesLost      uint64 // own frames that the data plane had no room for
	CommandsDelayed uint64 // commands that the data plane had no room for at once
	EndHints        uint64 // FIN or RST of clients on flows of targets
	EndReports      uint64 // flows that targets reported over
	IdleAsked       uint64 // flows of targets that were about to be forgotten
	Orphans         uint64 // segments without an entry
	OrphansAsked    uint64 // tuples that targets were asked about
	OrphansLive     uint64 // tuples that a target owns although there is no entry
	UnknownHosts    uint64 // messages of hosts that are not configured
	StrayMessages   uint64 // answers that nothing waits for
	SendFailed      uint64 // messages to targets that were surely not delivered
	Faults          uint64 // things that targets said and never may
	TakenBack       uint64 // connections that targets handed back
	BackRefused     uint64 // connections that they wanted to
	PasswordsRight  uint64 // passwords that were found right
	PasswordsWrong  uint64 // or wrong, or of nobody
	PasswordsFailed uint64 // that could not be checked
}

// Total is one of Counts with its name.
type Total struct {
	Name  string // snake_case
	Value uint64
}

// Totals are all counts, in the order of their definition.
func (c Counts) Totals() []Total {
	return []Total{
		{"opened", c.Opened}, {"refused", c.Refused}, {"transferred", c.Transferred}, {"reset", c.Reset},
		{"aborted", c.Aborted}, {"vanished", c.Vanished}, {"table_full", c.TableFull}, {"repeated", c.Repeated}, {"unknown_services", c.UnknownServices},
		{"unknown_flows", c.UnknownFlows}, {"bad_frames", c.BadFrames}, {"icmp_errors", c.ICMPErrors},
		{"exceptions", c.Exceptions}, {"exceptions_lost", c.ExceptionsLost},
		{"kernel_frames", c.KernelFrames}, {"frames_lost", c.FramesLost},
		{"commands_delayed", c.CommandsDelayed}, {"end_hints", c.EndHints}, {"end_reports", c.EndReports},
		{"idle_asked", c.IdleAsked}, {"orphans", c.Orphans}, {"orphans_asked", c.OrphansAsked}, {"orphans_live", c.OrphansLive},
		{"unknown_hosts", c.UnknownHosts}, {"stray_messages", c.StrayMessages}, {"send_failed", c.SendFailed},
		{"faults", c.Faults}, {"taken_back", c.TakenBack}, {"back_refused", c.BackRefused},
		{"passwords_right", c.PasswordsRight}, {"passwords_wrong", c.PasswordsWrong}, {"passwords_failed", c.PasswordsFailed},
	}
}

// TargetStatus is a row of the destination port table, or a target host without any.
type TargetStatus struct {
	Host      string
	Owner     flow.OwnerID
	Address   netip.Addr
	Tunnel    flow.Tunnel // zero: none
	Known     bool        // on the data network
	MAC       wire.MAC    // where, when Known
	Connected bool
	Draining  bool
	Job       Job    // zero without rows
	Unfit     string // why no connection could be given now; "" is that one could
	Pending   int    // transfers under way to the host
	Active    int    // connections given to the host, less those reported over since the router started
}

// Snapshot is the router's state for operators and metrics.
type Snapshot struct {
	Conns   int
	Counts  Counts
	Targets []TargetStatus // by owner, then service and job
}

// Snapshot asks the loop for its state. Safe from any goroutine.
func (r *Router) Snapshot(ctx context.Context) (Snapshot, error) {
	var s Snapshot
	err := r.Do(ctx, func() {
		s = Snapshot{Conns: len(r.conns), Counts: r.count, Targets: r.status()}
	})
	return s, err
}

// Recent asks the loop for the last attempts to transfer, newest first. Safe from any goroutine.
func (r *Router) Recent(ctx context.Context) ([]Attempt, error) {
	var all []Attempt
	err := r.Do(ctx, func() { all = r.history.recent() })
	return all, err
}

// OwnerName names an owner: "router", a target, or "" for one that was never defined. Safe from any goroutine: targets
// do not change.
func (r *Router) OwnerName(id flow.OwnerID) string {
	switch {
	case id == flow.Router:
		return "router"
	case int(id) < len(r.byOwner):
		return r.byOwner[id].name
	}
	return ""
}

func (r *Router) status() []TargetStatus {
	var all []TargetStatus
	for _, t := range r.byOwner[1:] {
		s := TargetStatus{Host: t.name, Owner: t.owner, Address: t.addr, Tunnel: t.tunnel, Known: t.neighbour.known,
			MAC: t.neighbour.mac, Connected: t.connected, Draining: t.draining, Pending: t.pending, Active: t.active}
		if len(t.rows) == 0 {
			s.Unfit = t.unreachable()
			all = append(all, s)
		}
		for _, key := range t.sortedRows() {
			s.Job = t.rows[key]
			s.Unfit = t.unfit(key.job, r.service(key.service))
			all = append(all, s)
		}
	}
	return all
}

// service is the configured one, or a stand-in without demands for a row that no DVIPA of this host goes with.
func (r *Router) service(a netip.AddrPort) *Service {
	if s := r.services[a]; s != nil {
		return s
	}
	return &Service{Address: a}
}
