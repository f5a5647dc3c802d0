package inspect

import "fmt"

// Session is a routing application at work on one connection. It is not safe for concurrent use.
type Session interface {
	// Inspect decides on all octets that the client sent and that were not consumed: data starts where the call before
	// said that it would, and has what that one was shown and did not consume; the session keeps no reference to it. A
	// call that consumed octets is followed by another one with those that are left, if any. Called again after a
	// decision, with more octets, it may change Route to Refuse (a request for another job came in), never a Refuse.
	Inspect(data []byte) Decision
	// Refusal returns what the client is told, in its protocol, before the connection is closed. It is shared: do not
	// change it.
	Refusal(Cause) []byte
}

// Decision is what a session wants to happen.
type Decision struct {
	Verdict Verdict
	Job     string // Route: who should serve
	Rule    int    // Route: the number of the rule that says so, from 1; 0: no rule, but the default
	Cause   Cause  // Refuse: why
	Detail  string // Refuse: why in words, for logs; constant text, nothing that the client sent
	Reply   []byte // NeedMore, Refuse, End: to send to the client now; shared, do not change
	// Consumed is how many octets at the start of data are dealt with (NeedMore only): who serves will not read them.
	Consumed int
	// Dialogue, of Route where the server speaks first, is what a server that knows nothing of this session has to be played
	// before it can go on with what was not consumed. Shared, do not change.
	Dialogue []Turn
	Login    *Login // Ask: whose password is to be checked
}

// Turn is something that the client said, and how the lines of a server's answer begin if it means what the session has
// answered.
type Turn struct {
	Say  []byte // one line with its end; empty: the server speaks first
	More string // the lines before the last one; "": there are none
	Last string // the last line
}

// Verdict is the kind of a decision.
type Verdict uint8

// The verdicts.
const (
	NeedMore Verdict = iota // the octets do not tell yet
	Route                   // hand the connection to Job
	Refuse                  // send Reply and close
	End                     // the same at the client's wish
	Ask                     // have a password checked: an Asker goes on with the Answer, and says the same again until then
)

// Cause is why a connection is refused. The router has Timeout and Unavailable, the others come from Inspect.
type Cause uint8

// The causes, with the status that HTTP has for them.
const (
	Malformed   Cause = iota + 1 // 400: not the protocol, or open to two readings
	Mixed                        // 400: requests in hand belong to different jobs
	NoMatch                      // 404: no rule matches and there is no default
	Timeout                      // 408: no complete head in time
	TooLarge                     // 431: the head does not end in time
	Unavailable                  // 503: no target takes the connection
	Version                      // 505: not HTTP/1.x
	Denied                       // 403: wrong passwords
)

var causeNames = [...]string{
	Malformed: "malformed", Mixed: "mixed", NoMatch: "no_match", Timeout: "timeout",
	TooLarge: "too_large", Unavailable: "unavailable", Version: "version", Denied: "denied",
}

// String returns the cause as metrics and logs have it, as in "no_match".
func (c Cause) String() string {
	if c == 0 || int(c) >= len(causeNames) {
		return fmt.Sprintf("cause(%d)", uint8(c))
	}
	return causeNames[c]
}

// String returns the verdict in words.
func (v Verdict) String() string {
	switch v {
	case NeedMore:
		return "need more"
	case Route:
		return "route"
	case Refuse:
		return "refuse"
	case End:
		return "end"
	case Ask:
		return "ask"
	}
	return fmt.Sprintf("verdict(%d)", uint8(v))
}
