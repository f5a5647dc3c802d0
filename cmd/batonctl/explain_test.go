package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"
)

const example = "../../configs/baton.example.yaml"

func explainRun(t *testing.T, input string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newCommand()
	cmd.SetOut(&out)
	cmd.SetIn(strings.NewReader(input))
	cmd.SetArgs(append([]string{"--json", "explain", "-c", example}, args...))
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

func TestExplainNamesTheRule(t *testing.T) {
	for _, row := range []struct {
		name, service, input string
		want                 explanation
		rule                 string // text of its line in the example
	}{
		{"rule", "10.77.0.10:80", "GET /static/x HTTP/1.1\r\nHost: a.example\r\n\r\n",
			explanation{Verdict: "route", Job: "web-a"}, `- host: a.example`},
		{"default", "10.77.0.10:80", "GET / HTTP/1.1\r\nHost: c.example\r\n\r\n",
			explanation{Verdict: "route", Job: "web-a"}, `default: web-a`},
		{"refusal", "10.77.0.10:80", "NONSENSE\r\n", explanation{Verdict: "refuse", Cause: "malformed"}, ""},
		{"more", "10.77.0.10:6379", "*1\r\n", explanation{Verdict: "need more"}, ""},
		{"dialogue", "10.77.0.10:110", "CAPA\r\nUSER x@b.example\r\n",
			explanation{Verdict: "route", Job: "mail", Consumed: 6}, `- user: "*@b.example"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			out, err := explainRun(t, row.input, row.service)
			if err != nil {
				t.Fatal(err)
			}
			var got explanation
			if err := json.Unmarshal([]byte(out), &got); err != nil {
				t.Fatal(err)
			}
			w := row.want
			if got.Verdict != w.Verdict || got.Job != w.Job || got.Cause != w.Cause || got.Consumed != w.Consumed {
				t.Errorf("%+v, want %+v", got, w)
			}
			if line := lineAt(t, got.Rule); !strings.Contains(line, row.rule) || (row.rule == "") != (line == "") {
				t.Errorf("rule at %s: %q, want %q", got.Rule, line, row.rule)
			}
		})
	}
}

func TestExplainWithoutTheService(t *testing.T) {
	for arg, want := range map[string]string{"10.77.0.10:81": "did you mean 10.77.0.10:8", "web": "want a service as in"} {
		if _, err := explainRun(t, "", arg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", arg, err, want)
		}
	}
}

// lineAt reads the line that "file:line" names.
func lineAt(t *testing.T, at string) string {
	t.Helper()
	if at == "" {
		return ""
	}
	file, number, ok := strings.Cut(at[strings.LastIndex(at, "/")+1:], ":")
	if !ok || !strings.HasSuffix(example, file) {
		t.Fatalf("%q is no place in %s", at, example)
	}
	n, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(string(b), "\n")[n-1]
}
