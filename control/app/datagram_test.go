package app

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestDatagramsThatAreNone(t *testing.T) {
	for _, row := range []struct {
		name, text string
		want       error
	}{
		{"nothing", ``, ErrMalformed},
		{"no JSON", `{"type":`, ErrMalformed},
		{"no object", `[1]`, ErrMalformed},
		{"no type", `{"session":"s","number":1}`, ErrMalformed},
		{"no session", `{"type":"accept","number":1}`, ErrMalformed},
		{"long session", `{"type":"accept","number":1,"session":"` + strings.Repeat("x", 65) + `"}`, ErrMalformed},
		{"message without a number", `{"type":"accept","session":"s"}`, ErrMalformed},
		{"acknowledgment of nothing", `{"type":"ack","session":"s"}`, ErrMalformed},
		{"ping with a number", `{"type":"ping","session":"s","number":1}`, ErrMalformed},
		{"negative number", `{"type":"accept","session":"s","number":-1}`, ErrMalformed},
		{"state that is no base64", `{"type":"transfer","session":"s","number":1,"state":"*"}`, ErrMalformed},
		{"too long", `{"type":"accept","session":"s","number":1}` + strings.Repeat(" ", MaxDatagram), ErrTooLarge},
	} {
		if d, err := ParseDatagram([]byte(row.text)); !errors.Is(err, row.want) || !reflect.DeepEqual(d, Datagram{}) {
			t.Errorf("%s: %+v, %v", row.name, d, err)
		}
	}
}

// FuzzParseDatagram: whatever is read can be written, and reads the same again.
func FuzzParseDatagram(f *testing.F) {
	f.Add([]byte(`{"token":"t","session":"s","number":1,"type":"register","role":"router","stream":"/a"}`))
	f.Add([]byte(`{"session":"s","number":7,"type":"ack"}`))
	f.Add([]byte(`{"session":"s","type":"ping"}`))
	f.Add([]byte(`{"session":"s","number":2,"type":"dpt","targets":[{"host":"t1","ready":true}],"from":{"name":"x"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ParseDatagram(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
				t.Error(err)
			}
			return
		}
		packed, err := d.Pack()
		if err != nil {
			return // has files or state that Pack refuses, or grows in writing
		}
		if again, err := ParseDatagram(packed); err != nil || !sameJSON(again, d) {
			t.Errorf("%+v is %+v, %v", d, again, err)
		}
	})
}

// sameJSON compares what is written: empty and missing lists are the same.
func sameJSON(a, b Datagram) bool {
	x, errX := a.Pack()
	y, errY := b.Pack()
	return errX == nil && errY == nil && string(x) == string(y)
}

func TestTokenFilesThatAreRefused(t *testing.T) {
	for _, row := range []struct {
		name, text string
		mode       os.FileMode
		want       string
	}{
		{"fine", " 0123456789abcdef\n", 0o640, ""},
		{"readable by others", "0123456789abcdef", 0o644, "chmod 640"},
		{"writable by its group", "0123456789abcdef", 0o660, "chmod 640"},
		{"empty", "", 0o600, "token of 0 octets"},
		{"short", "0123456789abcde", 0o600, "token of 15 octets, want 16 to 256"},
		{"long", strings.Repeat("x", 257), 0o600, "token of 257 octets"},
	} {
		path := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(path, []byte(row.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, row.mode); err != nil {
			t.Fatal(err)
		}
		got, err := ReadToken(path)
		switch {
		case row.want == "":
			if err != nil || got != "0123456789abcdef" {
				t.Errorf("%s: %q, %v", row.name, got, err)
			}
		case !errors.Is(err, ErrToken) || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "0123"):
			t.Errorf("%s: %v", row.name, err)
		}
	}
	if _, err := ReadToken("/nonexistent"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
