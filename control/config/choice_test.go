package config

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"baton/control/inspect"
)

// usersText is a service whose rules are a map in a file.
const usersText = `{host: h, data: {ports: [{device: d, address: 10.0.0.1/8}]},
 xcf: {listen: ":1", ca: /dev/null, cert: /dev/null, key: /dev/null},
 dvipas: [{address: 10.0.0.2, ports: [{port: 1, protocol: imap, imap: {rules: [{map_file: users}]}}]}],
 jobs: {j: {hosts: [t]}, k: {hosts: [t]}}, targets: {t: {address: 10.0.0.3}}}`

func TestMapFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	r, err := parseRouter("x", []byte(usersText))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ text, want string }{
		{"# users\n\nann j\n*@a.example\tk \n", ""},
		{"ann j\nbob\n", `users:2:1: 1 words: want a key and a job as in "ann@a.example mail"`},
		{"ann j k\n", `users:1:1: 3 words: want a key and a job as in "ann@a.example mail"`},
		{"ann j\n\nbob l\n", `users:3:1: "l" is not under jobs: did you mean j?`},
		{"ann j\nann k\n", `users:2:1: "ann" is there twice`},
	} {
		if err := os.WriteFile("users", []byte(row.text), 0o600); err != nil {
			t.Fatal(err)
		}
		app, err := r.NewApplication(&r.DVIPAs[0].Ports[0])
		if got := fmt.Sprint(err); row.want != "" && got != row.want || row.want == "" && err != nil {
			t.Errorf("%.20q: %v, want %s", row.text, err, row.want)
		}
		if row.want == "" {
			checkMapped(t, app)
		} else if err := r.CheckFiles(); !strings.Contains(fmt.Sprint(err), row.want) {
			t.Errorf("CheckFiles: %v, want %s", err, row.want)
		}
	}
	if err := os.Remove("users"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.NewApplication(&r.DVIPAs[0].Ports[0]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the file: %v", err)
	}
}

func checkMapped(t *testing.T, app inspect.Application) {
	t.Helper()
	for user, job := range map[string]string{"ann": "j", "x@a.example": "k"} {
		s := app.Session(2048)
		s.Inspect(nil)
		if d := s.Inspect([]byte("a LOGIN " + user + " x\r\n")); d.Job != job {
			t.Errorf("%s: %+v, want %s", user, d, job)
		}
	}
}

func TestErrorsOfKeysSayWhere(t *testing.T) {
	for _, row := range []struct{ section, want string }{
		{`protocol: http, http: {rules: [{by: cookies s, map: {a: j}}]}`, "http.rules[0].by: bad key"},
		{`protocol: http, http: {rules: [{job: j}, {map: {"a:80": j}}]}`, "http.rules[1].map: bad map"},
		{`protocol: http, http: {rules: [{by: path, map: {/a: x}}]}`, "http.rules[0].map./a: "},
		{`protocol: http, http: {rules: [{by: path, hash: [j, x]}]}`, "http.rules[0].hash[1]: "},
		{`protocol: postgres, postgres: {rules: [{by: host, map: {a: j}}]}`, "postgres.rules[0].by: bad key"},
		{`protocol: postgres, postgres: {rules: [{user: "a*b", job: j}]}`, "postgres.rules[0].user: bad user"},
		{`protocol: postgres, postgres: {rules: [{database: "~(", map: {a: j}}]}`, "postgres.rules[0].database: bad database"},
		{`protocol: redis, redis: {rules: [{by: key, hash: [j]}]}`, "redis.rules[0].by: bad key"},
		{`protocol: redis, redis: {rules: [{user: "*a*", job: j}]}`, "redis.rules[0].user: bad user"},
		{`protocol: redis, redis: {rules: [{map: {a: x}}]}`, "redis.rules[0].map.a: "},
		{`protocol: tls, tls: {rules: [{map: {A.example: j, a.example: k}}]}`, "tls.rules[0].map: bad map"},
	} {
		text := strings.Replace(usersText, "protocol: imap, imap: {rules: [{map_file: users}]}", row.section, 1)
		if _, err := parseRouter("x", []byte(text)); !strings.Contains(fmt.Sprint(err), "dvipas[0].ports[0]."+row.want) {
			t.Errorf("%s: %v, want %s", row.section, err, row.want)
		}
	}
}
