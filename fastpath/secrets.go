package fastpath

import (
	"errors"
	"fmt"
	"time"

	"baton/cgo"
)

// Secret is a secret of the cluster, from which the keys of SYN cookies and timestamp offsets are derived. From its time
// on, handshakes are answered with it.
type Secret struct {
	From   time.Time // whole milliseconds count
	Octets [32]byte  // random
}

// Bounds of the secrets that a forwarder has.
const (
	// MaxSecrets is how many it may have at a time.
	MaxSecrets = cgo.MaxSecrets
	// HandshakeLife is how long a handshake may take, and how long secrets must be apart.
	HandshakeLife = cgo.CookieLifeMS * time.Millisecond
)

var errSecrets = errors.New("impossible secrets")

// SetSecrets replaces the secrets, 1 to MaxSecrets in rising order of their times and HandshakeLife apart; the first one
// also stands for all time before. Handshakes that a former secret of them answered complete for HandshakeLife. Safe from
// any goroutine.
func (f *Forwarder) SetSecrets(secrets []Secret) error {
	if len(secrets) < 1 || len(secrets) > MaxSecrets {
		return fmt.Errorf("%w: %d of them, 1 to %d are possible", errSecrets, len(secrets), MaxSecrets)
	}
	list := make([]cgo.Secret, len(secrets))
	for i, s := range secrets {
		if i > 0 && s.From.Sub(secrets[i-1].From) < HandshakeLife {
			return fmt.Errorf("%w: number %d begins at %v, less than %v after the one before", errSecrets, i+1, s.From, HandshakeLife)
		}
		list[i] = cgo.Secret{FromMS: uint64(max(0, s.From.UnixMilli())), Octets: s.Octets}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return ErrClosed
	}
	for _, l := range f.loops {
		if err := l.SetSecrets(list); err != nil {
			return fmt.Errorf("set secrets: %w", err)
		}
	}
	return nil
}
