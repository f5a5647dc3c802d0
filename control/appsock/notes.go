package appsock

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"baton/control/app"
	"baton/control/xcf"
)

// What becomes of a note, as it is counted.
const (
	noteDelivered = "delivered" // to an application of this host
	noteSent      = "sent"      // to another host; of a routing host, also from another
	noteRefused   = "refused_"  // and the code
	noteMalformed = "malformed" // by another host
	noteUntold    = "untold"    // refused, and the sender cannot be told
)

// maxNotes is how many messages may wait for an application when another note comes: the rest is for offers and the like.
const maxNotes = maxWaiting / 2

// maxWhy bounds the octets of what another host gives as a reason.
const maxWhy = 1000

// Way leads to other hosts. Send does not block; without a stream to the host its error is xcf.ErrNotConnected.
type Way interface {
	Send(host string, e *xcf.Envelope) error
}

// Notes carries notes, which are messages between applications: among those of this host, and over XCF to and from those
// of others. Each host has one, also without a control socket. Its methods are safe for concurrent use.
type Notes struct {
	host   string
	relays []string // routing hosts, of a target host
	log    *slog.Logger
	way    Way

	mu      sync.Mutex
	last    uint64          // ID
	members []correspondent // in the order of registration
	counts  map[string]uint64
}

// correspondent is a registration of an application.
type correspondent struct {
	peer  *Peer
	party app.Party
}

// NewNotes makes that of a host. A target host names its routing hosts: they pass on what is for other target hosts. Use
// sets the way before the first call.
func NewNotes(host string, relays []string, log *slog.Logger) *Notes {
	// Who answers an ID of the daemon before must not reach somebody else: so they begin with the time.
	return &Notes{host: host, relays: relays, log: log, last: uint64(time.Now().UnixMicro()), counts: map[string]uint64{}}
}

// Use says how other hosts are reached.
func (n *Notes) Use(w Way) { n.way = w }

// Counts are totals, by what became of notes.
func (n *Notes) Counts() map[string]uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.counts)
}

func (n *Notes) count(what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counts[what]++
}

// join makes a registration of an application known, and tells it so in the same moment: no note comes before, and none for
// who is told fails to find it. All registrations of one control socket have one ID; one that is repeated under another name
// takes the place of the first.
func (n *Notes) join(p *Peer, name string, role app.Role, job string, told ...app.Message) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range told {
		p.Send(m)
	}
	party := app.Party{Host: n.host, Name: name, Role: role, Job: job, ID: n.last + 1}
	if i := n.index(p); i >= 0 {
		party.ID = n.members[i].party.ID
	}
	n.last = max(n.last, party.ID)
	for i, c := range n.members {
		if c.peer == p && c.party.Role == role && c.party.Job == job {
			n.members[i].party = party
			return
		}
	}
	n.members = append(n.members, correspondent{p, party})
}

// leave forgets an application.
func (n *Notes) leave(p *Peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.members = slices.DeleteFunc(n.members, func(c correspondent) bool { return c.peer == p })
}

// index is where the first registration of an application is; -1: it has none. Called with mu held.
func (n *Notes) index(p *Peer) int {
	return slices.IndexFunc(n.members, func(c correspondent) bool { return c.peer == p })
}

// partyOf is what an application is called, if it is registered.
func (n *Notes) partyOf(p *Peer) (party app.Party, registered bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if i := n.index(p); i >= 0 {
		return n.members[i].party, true
	}
	return party, false
}

// refusal is why a note is not delivered.
type refusal struct{ code, detail string }

// counted is what it is counted as.
func (r *refusal) counted() string { return noteRefused + strings.ReplaceAll(r.code, " ", "_") }

// noteProblem says why a note cannot be one; nil: it can.
func noteProblem(to app.Party, tag string, data []byte) *refusal {
	switch {
	case to.ID == 0 && to.Name == "" && to.Job == "" && to.Role == "":
		return &refusal{app.CodeMalformed, `"to" names no application: it needs a role, name, job or id`}
	case tooLong(to) || len(tag) > app.MaxText:
		return &refusal{app.CodeTooLarge, fmt.Sprintf("tag and each text of to may have %d octets", app.MaxText)}
	case len(data) > app.MaxData:
		return &refusal{app.CodeTooLarge, fmt.Sprintf("%d octets of data, at most %d", len(data), app.MaxData)}
	}
	return nil
}

func tooLong(p app.Party) bool {
	return max(len(p.Host), len(p.Name), len(p.Role), len(p.Job)) > app.MaxText
}

// send takes a note from an application of this host, and tells it if there is nobody to give it to.
func (n *Notes) send(p *Peer, m app.Message) {
	var to app.Party
	if m.To != nil {
		to = *m.To
	}
	from, registered := n.partyOf(p)
	why := noteProblem(to, m.Tag, m.Data)
	switch {
	case !registered:
		why = &refusal{app.CodeNotAllowed, "only applications that are registered may send messages"}
	case why != nil:
	case to.Host == "" || to.Host == n.host:
		why = n.deliver(to, app.Message{Type: app.TypeMessage, From: &from, Tag: m.Tag, Data: m.Data})
	default:
		why = n.post(&xcf.Note{To: packParty(to), From: packParty(from), Tag: m.Tag, Data: m.Data, Seq: m.Seq}, n.relays)
	}
	if why == nil {
		return
	}
	if tooLong(to) {
		to = app.Party{} // it would not fit into the answer
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counts[why.counted()]++
	n.answer(p, undelivered(m.Seq, to, why))
}

// answer tells an application that a note of its is not delivered. Called with mu held.
func (n *Notes) answer(p *Peer, m app.Message) {
	if !n.give(p, m) {
		n.counts[noteUntold]++
	}
}

// undelivered is what the sender of a note is told.
func undelivered(seq uint64, to app.Party, why *refusal) app.Message {
	return app.Message{Type: app.TypeError, Seq: seq, Code: why.code, Detail: why.detail, To: &to}
}

// deliver gives a note to an application of this host: of those that fit, to the one that has been registered for longest.
func (n *Notes) deliver(to app.Party, m app.Message) *refusal {
	n.mu.Lock()
	defer n.mu.Unlock()
	i := slices.IndexFunc(n.members, func(c correspondent) bool { return fits(to, c.party) })
	if i < 0 {
		return &refusal{app.CodeUnknownApp, "no application that fits is registered at " + n.host}
	}
	if !n.give(n.members[i].peer, m) {
		return &refusal{app.CodeQueueFull, "too much waits for " + n.members[i].party.Name + ", which does not read"}
	}
	n.counts[noteDelivered]++
	return nil
}

// fits is whether an application is one of those that an address names.
func fits(to, is app.Party) bool {
	return (to.ID == 0 || to.ID == is.ID) && (to.Name == "" || to.Name == is.Name) &&
		(to.Job == "" || to.Job == is.Job) && (to.Role == "" || to.Role == is.Role)
}

// give gives an application a message unless too much waits for it. Called with mu held, so that no other note comes in
// between.
func (n *Notes) give(p *Peer, m app.Message) bool {
	if len(p.out) >= maxNotes {
		return false
	}
	p.Send(m)
	return true
}

// post sends a note to its host, or to the first that there is a stream to of those that may pass it on.
func (n *Notes) post(note *xcf.Note, relays []string) *refusal {
	host := note.GetTo().GetHost()
	for _, by := range append([]string{host}, relays...) {
		err := n.way.Send(by, &xcf.Envelope{Message: &xcf.Envelope_Note{Note: note}})
		switch {
		case err == nil:
			n.count(noteSent)
			return nil
		case errors.Is(err, xcf.ErrQueueFull):
			return &refusal{app.CodeQueueFull, "too much waits for host " + by}
		}
	}
	return &refusal{app.CodeUnknownHost, fmt.Sprintf("there is no way to a host %q from %s", host, n.host)}
}

// Heard takes what another host says about notes, and reports whether it was about them.
func (n *Notes) Heard(host string, e *xcf.Envelope) bool {
	switch m := e.GetMessage().(type) {
	case *xcf.Envelope_Note:
		n.arrived(host, m.Note)
	case *xcf.Envelope_Undelivered:
		n.returned(m.Undelivered)
	default:
		return false
	}
	return true
}

// routing is whether this is a routing host. It has the streams to all others, so it says whose a note is, and passes on.
func (n *Notes) routing() bool { return len(n.relays) == 0 }

// arrived takes a note from another host.
func (n *Notes) arrived(host string, note *xcf.Note) {
	to, from := unpackParty(note.GetTo()), unpackParty(note.GetFrom())
	if n.routing() {
		from.Host = host
	}
	if from.ID == 0 || tooLong(from) {
		n.count(noteMalformed)
		n.log.Warn("xcf: message of no application", "host", host)
		return
	}
	why := noteProblem(to, note.GetTag(), note.GetData())
	switch {
	case why != nil:
	case to.Host == n.host:
		why = n.deliver(to, app.Message{Type: app.TypeMessage, From: &from, Tag: note.GetTag(), Data: note.GetData()})
	case n.routing():
		note.From = packParty(from)
		why = n.post(note, nil)
	default:
		why = &refusal{app.CodeUnknownHost, "this is " + n.host}
	}
	if why != nil {
		n.count(why.counted())
		n.tell(host, &xcf.Undelivered{To: packParty(from), Of: packParty(to), Seq: note.GetSeq(), Code: why.code,
			Detail: why.detail})
	}
}

// returned takes word of a note of this host's, or passes it on.
func (n *Notes) returned(u *xcf.Undelivered) {
	to, of := unpackParty(u.GetTo()), unpackParty(u.GetOf())
	if to.Host != n.host && n.routing() {
		n.tell(to.Host, u)
		return
	}
	if tooLong(of) || len(u.GetCode()) > maxWhy || len(u.GetDetail()) > maxWhy {
		n.count(noteMalformed)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	i := slices.IndexFunc(n.members, func(c correspondent) bool { return c.party.ID == to.ID })
	if i < 0 {
		n.counts[noteUntold]++
		return
	}
	n.answer(n.members[i].peer, undelivered(u.GetSeq(), of, &refusal{u.GetCode(), u.GetDetail()}))
}

// tell sends word of a note towards its sender.
func (n *Notes) tell(host string, u *xcf.Undelivered) {
	if err := n.way.Send(host, &xcf.Envelope{Message: &xcf.Envelope_Undelivered{Undelivered: u}}); err != nil {
		n.count(noteUntold)
	}
}

func packParty(p app.Party) *xcf.Party {
	return &xcf.Party{Host: p.Host, Role: string(p.Role), Name: p.Name, Job: p.Job, Id: p.ID}
}

func unpackParty(p *xcf.Party) app.Party {
	return app.Party{Host: p.GetHost(), Role: app.Role(p.GetRole()), Name: p.GetName(), Job: p.GetJob(), ID: p.GetId()}
}
