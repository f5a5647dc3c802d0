package fastpath

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"baton/fastpath/flow"
	"baton/fastpath/wire"
)

// rotating has two secrets, the second of which begins one minute after the epoch.
func rotating(t *testing.T, change ...func(*Config)) (*rig, []Secret) {
	t.Helper()
	r := newRig(t, change...)
	secrets := []Secret{{From: epoch.Add(-time.Hour), Octets: [32]byte{1}}, {From: epoch.Add(time.Minute), Octets: [32]byte{2}}}
	r.must(r.SetSecrets(secrets))
	r.advance(time.Millisecond)
	return r, secrets
}

func TestHandshakesBegunBeforeARotationComplete(t *testing.T) {
	tests := []struct {
		name    string
		wait    time.Duration // from the handshake to the first data
		options bool          // timestamps, whose offsets change with the secret
		ok      bool
	}{
		{"at once", 0, true, true},
		{"over the rotation", 2 * time.Second, true, true},
		{"over the rotation, without timestamps", 2 * time.Second, false, true},
		{"into the next tick", 64 * time.Second, true, true},
		{"too long", 130 * time.Second, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, _ := rotating(t)
			r.advance(59 * time.Second)
			p := r.peer(client4, 5)
			if !tt.options {
				p.options = wire.Options{MSS: 1460}
			}
			p.connect()
			for range tt.wait / time.Second {
				r.advance(time.Second)
			}
			p.options.TSVal += uint32(tt.wait / time.Millisecond)
			p.send(0, wire.ACK|wire.PSH, "GET ")
			if !tt.ok {
				r.wantCount("handshakes", "forged", 1)
				return
			}
			first := r.punted(flow.First)
			if ts := uint32(r.now.UnixMilli()-tt.wait.Milliseconds()) + first.TSOffset; tt.options && ts != p.synAck.Options.TSVal {
				t.Errorf("timestamps go on from %d, the SYN-ACK had %d", ts, p.synAck.Options.TSVal)
			}
		})
	}
}

func TestNewSecretAnswersFromItsTimeOn(t *testing.T) {
	r, secrets := rotating(t)
	other := newRig(t) // a host that has the second secret only
	r.must(other.SetSecrets(secrets[1:]))
	accepts := func(at time.Duration, port uint16) bool {
		r.advance(epoch.Add(at).Sub(r.now))
		other.advance(epoch.Add(at).Sub(other.now))
		p := r.peer(netip.AddrPortFrom(client4.Addr(), port), 5).connect()
		other.put(p.frame(p.segment(0, wire.ACK, "x")))
		return len(other.punts()) == 1 && other.Flows() == int(other.count("handshakes", "accepted"))
	}
	before := other.count("handshakes", "accepted")
	accepts(time.Minute-time.Millisecond, 1)
	if other.count("handshakes", "accepted") != before {
		t.Error("the second secret was used before its time")
	}
	if !accepts(time.Minute, 2) || other.count("handshakes", "accepted") != before+1 {
		t.Error("the second secret was not used from its time on")
	}
}

func TestRetiredSecretIsForgotten(t *testing.T) {
	r, secrets := rotating(t)
	old := newRig(t) // a host that never heard of the second
	r.must(old.SetSecrets(secrets[:1]))
	r.advance(time.Minute + HandshakeLife - 2*time.Millisecond)
	old.advance(r.now.Sub(old.now))
	p := old.peer(client4, 5).connect()
	r.put(p.frame(p.segment(0, wire.ACK, "x")))
	r.wantCount("handshakes", "accepted", 1)
	r.advance(2 * time.Millisecond)
	q := old.peer(netip.AddrPortFrom(client4.Addr(), 7), 5).connect()
	r.put(q.frame(q.segment(0, wire.ACK, "x")))
	r.wantCount("handshakes", "accepted", 1)
	r.wantCount("handshakes", "forged", 1)
}

func TestImpossibleSecrets(t *testing.T) {
	r := newRig(t)
	at := func(d time.Duration) Secret { return Secret{From: epoch.Add(d)} }
	for name, list := range map[string][]Secret{
		"none":        {},
		"too many":    {at(0), at(time.Hour), at(2 * time.Hour), at(3 * time.Hour), at(4 * time.Hour)},
		"falling":     {at(time.Hour), at(0)},
		"too near":    {at(0), at(HandshakeLife - 1)},
		"at one time": {at(0), at(0)},
	} {
		if err := r.SetSecrets(list); !errors.Is(err, errSecrets) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	r.must(r.Close())
	if err := r.SetSecrets([]Secret{at(0)}); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v, want ErrClosed", err)
	}
}
