package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"baton/control/admin"
	"baton/control/config"
	"baton/control/keys"
	"baton/fastpath"
)

// keyPeriod is how often the file of secrets is looked at, and whether a rotation is due.
const keyPeriod = time.Second

// keyring keeps the secrets of SYN cookies: reads them again when their file changes, and rotates them.
type keyring struct {
	path         string // "": in memory only
	period, lead time.Duration
	log          *slog.Logger
	set          func([]fastpath.Secret) error

	mu    sync.Mutex
	ring  keys.Ring
	stamp os.FileInfo // of the file when it was read or found bad; nil: there was none
}

// openKeyring loads the secrets, or makes the first one.
func openKeyring(c config.Keys, log *slog.Logger, set func([]fastpath.Secret) error) (*keyring, error) {
	k := &keyring{path: c.File, period: time.Duration(c.Rotate), lead: time.Duration(c.Lead), log: log, set: set}
	create := func() keys.Ring { return keys.New(newSecret(), time.Now()) }
	ring := create()
	if k.path != "" {
		var err error
		if ring, err = keys.LoadOrCreate(k.path, create); err != nil {
			return nil, err
		}
		k.stamp, _ = os.Stat(k.path)
	}
	return k, k.use(ring)
}

func newSecret() (octets [32]byte) {
	_, _ = rand.Read(octets[:]) // never fails (crypto/rand)
	return octets
}

// use gives a ring to the forwarder.
func (k *keyring) use(ring keys.Ring) error {
	secrets := make([]fastpath.Secret, len(ring))
	for i, s := range ring {
		secrets[i] = fastpath.Secret(s)
	}
	if err := k.set(secrets); err != nil {
		return err
	}
	k.ring = ring
	return nil
}

// watch keeps the secrets up to date until ctx ends.
func (k *keyring) watch(ctx context.Context) error {
	tick := time.NewTicker(keyPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			k.look(now)
		}
	}
}

func (k *keyring) look(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reload()
	newest := k.ring[len(k.ring)-1].From
	if k.period == 0 || now.Sub(newest) < k.period-k.lead {
		return
	}
	if err := k.rotateTo(now); err != nil {
		k.log.Error("keys: rotation", "err", err)
	}
}

// reload reads the file again if it is another one than before. A bad one is told once, and the secrets stay.
func (k *keyring) reload() {
	if k.path == "" {
		return
	}
	info, err := os.Stat(k.path)
	if err == nil && k.stamp != nil && os.SameFile(info, k.stamp) && info.ModTime().Equal(k.stamp.ModTime()) ||
		err != nil && k.stamp == nil {
		return
	}
	k.stamp = info
	ring, err := keys.Load(k.path)
	if err == nil {
		err = k.use(ring)
	}
	if err != nil {
		k.log.Error("keys: the secrets stay as they were", "err", err)
		return
	}
	k.log.Info("keys: file read again", "secrets", len(ring), "newest", ring[len(ring)-1].From)
}

// rotate adds a secret that is used after the lead.
func (k *keyring) rotate(context.Context) ([]admin.Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reload()
	if err := k.rotateTo(time.Now()); err != nil {
		return nil, err
	}
	return k.list(time.Now()), nil
}

func (k *keyring) rotateTo(now time.Time) error {
	ring, err := k.ring.Rotated(newSecret(), now.Add(k.lead), now)
	if err != nil {
		return err
	}
	if k.path != "" { // first: no other host must hear of a cookie whose secret may be lost
		if err := keys.Save(k.path, ring); err != nil {
			return err
		}
		k.stamp, _ = os.Stat(k.path)
	}
	if err := k.use(ring); err != nil {
		return err
	}
	k.log.Info("keys: rotated", "from", ring[len(ring)-1].From)
	return nil
}

// show is what operators see.
func (k *keyring) show(context.Context) ([]admin.Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.list(time.Now()), nil
}

func (k *keyring) list(now time.Time) []admin.Key {
	var rows []admin.Key
	current := k.ring.Current(now)
	for i, s := range k.ring {
		state := "next"
		switch {
		case i == current:
			state = "current"
		case i < current && now.Sub(k.ring[i+1].From) < keys.Life:
			state = "retiring"
		case i < current:
			state = "retired"
		}
		digest := sha256.Sum256(s.Octets[:])
		rows = append(rows, admin.Key{Fingerprint: fmt.Sprintf("%x", digest[:6]), From: s.From, State: state})
	}
	return rows
}
