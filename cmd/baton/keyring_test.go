package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"baton/control/config"
	"baton/control/keys"
	"baton/fastpath"
)

// ringRig is a keyring whose forwarder only remembers.
type ringRig struct {
	*keyring
	log bytes.Buffer
	got []fastpath.Secret
}

func newRingRig(t *testing.T, c config.Keys) *ringRig {
	t.Helper()
	r := &ringRig{}
	var err error
	r.keyring, err = openKeyring(c, slog.New(slog.NewTextHandler(&r.log, nil)), func(s []fastpath.Secret) error {
		r.got = s
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestKeyringSurvivesARestart(t *testing.T) {
	c := config.Keys{File: filepath.Join(t.TempDir(), "cookies"), Lead: config.Duration(time.Second)}
	first := newRingRig(t, c)
	if _, err := first.rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := newRingRig(t, c)
	if len(second.got) != 2 || second.got[0] != first.got[0] || second.got[1] != first.got[1] {
		t.Errorf("secrets of %v, want those of %v", second.got, first.got)
	}
	other := newRingRig(t, config.Keys{})
	if other.got[0].Octets == first.got[0].Octets || other.got[0].Octets == [32]byte{} {
		t.Error("a host without a file has a known secret")
	}
}

func TestKeyringRotates(t *testing.T) {
	r := newRingRig(t, config.Keys{Lead: config.Duration(time.Hour)})
	rows, err := r.rotate(t.Context())
	if err != nil || len(rows) != 2 || rows[0].State != "current" || rows[1].State != "next" {
		t.Fatalf("%+v, %v", rows, err)
	}
	if _, err := r.rotate(t.Context()); !errors.Is(err, keys.ErrTooSoon) {
		t.Errorf("error %v, want ErrTooSoon", err)
	}
	states := func(at time.Time) (s string) {
		for _, row := range r.list(at) {
			s += row.State + " "
		}
		return s
	}
	from := r.got[1].From
	for _, step := range []struct {
		after time.Duration
		want  string
	}{{-time.Second, "current next "}, {0, "retiring current "}, {keys.Life, "retired current "}} {
		if got := states(from.Add(step.after)); got != step.want {
			t.Errorf("%v after the change: %s, want %s", step.after, got, step.want)
		}
	}
}

func TestKeyringRotatesByItself(t *testing.T) {
	c := config.Keys{Rotate: config.Duration(time.Hour), Lead: config.Duration(time.Minute)}
	r := newRingRig(t, c)
	start := r.got[0].From
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{58 * time.Minute, 1}, {59 * time.Minute, 2}, {60 * time.Minute, 2}, {118 * time.Minute, 2}, {119 * time.Minute, 2}} {
		r.look(start.Add(step.after))
		if len(r.got) != step.want {
			t.Fatalf("%d secrets after %v, want %d", len(r.got), step.after, step.want)
		}
	}
	if newest := r.got[1].From; !newest.Equal(start.Add(2 * time.Hour)) {
		t.Errorf("the newest begins %v after the first, want 2h", newest.Sub(start))
	}
}

func TestKeyringReadsItsFileAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cookies")
	r := newRingRig(t, config.Keys{File: path})
	own := r.got[0]
	other, err := keys.Ring{keys.Secret(own)}.Rotated([32]byte{9}, own.From.Add(time.Hour), own.From)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r.look(time.Now())
	}
	if len(r.got) != 1 || r.got[0] != own || strings.Count(r.log.String(), "level=ERROR") != 1 {
		t.Errorf("after a bad file: %v, log %s", r.got, r.log.String())
	}
	if err := keys.Save(path, other); err != nil {
		t.Fatal(err)
	}
	r.look(time.Now())
	if len(r.got) != 2 || r.got[1].Octets != [32]byte{9} {
		t.Errorf("after another host's rotation: %v", r.got)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.look(time.Now())
	if len(r.got) != 2 {
		t.Errorf("after the file was lost: %v", r.got)
	}
}
