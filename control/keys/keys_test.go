package keys

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var (
	epoch = time.Date(2026, 11, 24, 13, 0, 0, 0, time.UTC)
	one   = [32]byte{1}
	two   = [32]byte{2}
	three = [32]byte{3}
)

func TestRotationKeepsWhatHandshakesNeed(t *testing.T) {
	r := New(one, epoch.Add(Life))
	r, err := r.Rotated(two, epoch.Add(Life), epoch)
	if err != nil || len(r) != 2 {
		t.Fatalf("%d secrets, %v", len(r), err)
	}
	for _, step := range []struct {
		at   time.Duration
		want int
	}{{-time.Hour, 0}, {0, 0}, {Life - time.Millisecond, 0}, {Life, 1}, {time.Hour, 1}} {
		if got := r.Current(epoch.Add(step.at)); got != step.want {
			t.Errorf("after %v number %d is in use, want %d", step.at, got, step.want)
		}
	}
	for _, step := range []struct {
		now  time.Duration
		want []byte // first octets
	}{{2*Life - time.Millisecond, []byte{1, 2, 3}}, {2 * Life, []byte{2, 3}}} {
		next, err := r.Rotated(three, epoch.Add(step.now+time.Second), epoch.Add(step.now))
		if err != nil {
			t.Fatal(err)
		}
		var got []byte
		for _, s := range next {
			got = append(got, s.Octets[0])
		}
		if !reflect.DeepEqual(got, step.want) {
			t.Errorf("after %v the ring has %v, want %v", step.now, got, step.want)
		}
	}
}

func TestRotationMustNotBeTooSoon(t *testing.T) {
	r := New(one, epoch.Add(Life))
	if _, err := r.Rotated(two, epoch.Add(Life-time.Millisecond), epoch); !errors.Is(err, ErrTooSoon) {
		t.Errorf("error %v, want ErrTooSoon", err)
	}
}

func TestRingSurvivesItsFile(t *testing.T) {
	r, err := New(one, epoch.Add(Life+123456789)).Rotated(two, epoch.Add(time.Hour), epoch)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ring")
	if err := Save(path, r); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is there
		got, err := LoadOrCreate(path, func() Ring { return New(three, epoch) })
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("read %v, %v; want %v", got, err, r)
		}
	}
	if files, _ := os.ReadDir(filepath.Dir(path)); len(files) != 1 {
		t.Errorf("%d files are left", len(files))
	}
}

func TestMissingRingIsMade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ring")
	want := New(one, epoch.Add(Life))
	got, err := LoadOrCreate(path, func() Ring { return want })
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v, %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; want mode 0600", info, err)
	}
	if _, err := LoadOrCreate(filepath.Join(path, "below a file"), func() Ring { return want }); err == nil {
		t.Error("a ring where none can be")
	}
}

func TestRingThatOthersMayReadIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ring")
	if err := os.WriteFile(path, New(one, epoch.Add(Life)).Text(), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); !errors.Is(err, ErrReadable) {
		t.Errorf("error %v, want ErrReadable", err)
	}
}

func TestMalformedRings(t *testing.T) {
	secret := strings.Repeat("ab", 32)
	line := func(from, secret string) string { return from + " " + secret + "\n" }
	good := line("2026-11-24T13:00:00Z", secret)
	tests := []struct{ name, text, says string }{
		{"empty", "", "0 secrets"},
		{"comment only", "# nothing\n\n", "0 secrets"},
		{"one word", "# x\nabc\n", "line 2: want a time and a secret"},
		{"three words", "a b c", "line 1: want a time and a secret"},
		{"no time", line("today", secret), `"today" is no time`},
		{"short", line("2026-11-24T13:00:00Z", secret[2:]), "62 characters"},
		{"long", line("2026-11-24T13:00:00Z", secret+"ab"), "66 characters"},
		{"no digits", line("2026-11-24T13:00:00Z", "x"+secret[1:]), "64 hexadecimal digits"},
		{"too near", good + line("2026-11-24T13:02:07Z", secret), "line 2: want a time 2m8s or more"},
		{"falling", good + line("2026-11-24T12:00:00Z", secret), "line 2: want a time"},
		{"too many", good + line("2026-11-24T14:00:00Z", secret) + line("2026-11-24T15:00:00Z", secret) +
			line("2026-11-24T16:00:00Z", secret) + line("2026-11-24T17:00:00Z", secret), "5 secrets: want 1 to 4"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse([]byte(tt.text))
			if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want it to say %q", err, tt.says)
			}
			if err != nil && strings.Contains(err.Error(), "abab") {
				t.Errorf("the error tells the secret: %v", err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(New(one, epoch.Add(Life)).Text())
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse(r.Text())
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%v becomes %v, %v", r, again, err)
		}
	})
}
