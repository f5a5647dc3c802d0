package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

const (
	routerExample = "../../configs/baton.example.yaml"
	targetExample = "../../configs/target.example.yaml"
	userExample   = "../../configs/userspace.example.yaml"
)

// A line of an example with one key: what is before it, the key, and the comment.
var exampleLine = regexp.MustCompile(`^(\s*(?:- )?)([a-z0-9_-]+): [^#]*[^# ] *(?:# (.*))?$`)

func loadRouterText(text string) (any, *report, error) {
	r, err := parseRouter("x", []byte(text))
	if err != nil {
		return nil, nil, err
	}
	to := r.report
	r.report = nil
	return r, to, nil
}

func loadTargetText(text string) (any, *report, error) {
	t, err := parseTarget("x", []byte(text))
	if err != nil {
		return nil, nil, err
	}
	to := t.report
	t.report = nil
	return t, to, nil
}

func loadUserTargetText(text string) (any, *report, error) {
	t, err := parseUserTarget("x", []byte(text))
	if err != nil {
		return nil, nil, err
	}
	to := t.report
	t.report = nil
	return t, to, nil
}

func examples(t *testing.T, check func(t *testing.T, text string, load func(string) (any, *report, error))) {
	t.Run("router", func(t *testing.T) { check(t, readFile(t, routerExample), loadRouterText) })
	t.Run("target", func(t *testing.T) { check(t, readFile(t, targetExample), loadTargetText) })
	t.Run("userspace", func(t *testing.T) { check(t, readFile(t, userExample), loadUserTargetText) })
}

// The key role says what a file of baton's is.
func TestRoleChoosesTheFilesKind(t *testing.T) {
	if b, err := LoadBaton(routerExample); err != nil {
		t.Error(err)
	} else if _, ok := b.(*Router); !ok {
		t.Errorf("%s is loaded as %T", routerExample, b)
	}
	if b, err := LoadBaton(userExample); err != nil {
		t.Error(err)
	} else if _, ok := b.(*UserTarget); !ok {
		t.Errorf("%s is loaded as %T", userExample, b)
	}
	path := filepath.Join(t.TempDir(), "none.yaml")
	for _, text := range []string{"", "role: targets", "role: [target]", "- role: target", "role: target\nhost: t1"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := LoadBaton(path); !errors.Is(err, ErrInvalid) || b != nil {
			t.Errorf("%q: %v, %v; want what is wrong with it", text, b, err)
		}
	}
}

// TestExamplesTellDefaults takes each line out of the examples: one marked "default" changes nothing, one marked
// "optional" is not missed, and without any other the file is refused.
func TestExamplesTellDefaults(t *testing.T) {
	examples(t, func(t *testing.T, text string, load func(string) (any, *report, error)) {
		whole, _, err := load(text)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(text, "\n")
		for i, line := range lines {
			m := exampleLine.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			shorter := append([]string{}, lines...)
			shorter[i] = strings.TrimSuffix(m[1], " ")
			rest, _, err := load(strings.Join(shorter, "\n"))
			switch isDefault, isOptional := strings.HasPrefix(m[3], "default:"), strings.HasPrefix(m[3], "optional:"); {
			case isDefault && err != nil, isOptional && err != nil:
				t.Errorf("line %d: %s cannot be left out: %v", i+1, m[2], err)
			case isDefault && !reflect.DeepEqual(rest, whole):
				t.Errorf("line %d: %s has another default", i+1, m[2])
			case isOptional && reflect.DeepEqual(rest, whole):
				t.Errorf("line %d: %s is a default", i+1, m[2])
			case !isDefault && !isOptional && err == nil:
				t.Errorf("line %d: %s can be left out", i+1, m[2])
			}
		}
	})
}

// TestExamplesHaveEveryKey looks for each field of the structs in the examples, and its range and words in the comment.
func TestExamplesHaveEveryKey(t *testing.T) {
	examples(t, func(t *testing.T, text string, load func(string) (any, *report, error)) {
		whole, to, err := load(text)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(text, "\n")
		found := map[string]bool{}
		visit("", reflect.ValueOf(whole).Elem(), func(owner reflect.Type, key string, f reflect.StructField) {
			name := owner.Name() + "." + f.Tag.Get("yaml")
			at, ok := to.places[key]
			if ok && !found[name] { // the first time is where it is explained
				checkComment(t, key, lines[at.line-1], f)
			}
			found[name] = found[name] || ok
		})
		for name, ok := range found {
			if !ok {
				t.Errorf("the example lacks %s", name)
			}
		}
	})
}

func checkComment(t *testing.T, key, line string, f reflect.StructField) {
	t.Helper()
	var must []string
	if bounds, ok := f.Tag.Lookup("range"); ok {
		must = append(must, rangeText(bounds))
	}
	if words, ok := f.Tag.Lookup("oneof"); ok {
		must = strings.Split(words, "|")
	}
	for _, m := range must {
		if !strings.Contains(line, m) {
			t.Errorf("%s: the comment does not say %q", key, m)
		}
	}
}

// visit calls back for each field that is a key, in all elements.
func visit(key string, v reflect.Value, f func(reflect.Type, string, reflect.StructField)) {
	switch {
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			visit(at(key, i), v.Index(i), f)
		}
	case v.Kind() == reflect.Map:
		for _, k := range v.MapKeys() {
			visit(join(key, k.String()), v.MapIndex(k), f)
		}
	case v.Kind() == reflect.Struct:
		for _, field := range fieldsOf(v.Type()) {
			name := join(key, field.Tag.Get("yaml"))
			owner := v.Type()
			if n := len(field.Index); n > 1 { // of a struct that it embeds
				owner = owner.FieldByIndex(field.Index[:n-1]).Type
			}
			f(owner, name, field)
			visit(name, v.FieldByIndex(field.Index), f)
		}
	}
}

func TestExamplesWarnOfNothingUnexpected(t *testing.T) {
	r, err := LoadRouter(routerExample)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Warnings()) > 0 {
		t.Errorf("%v", r.Warnings())
	}
}

func TestAbsentSectionsHaveDefaults(t *testing.T) {
	r, err := parseRouter("x", []byte(`{host: h, data: {ports: [{device: d, address: 10.0.0.1/8}]},
		xcf: {listen: ":1", ca: a, cert: b, key: c},
		dvipas: [{address: 10.0.0.2, ports: [{port: 1, http: {default: j}}]}],
		jobs: {j: {hosts: [t]}}, targets: {t: {address: 10.0.0.3}}}`))
	if err != nil {
		t.Fatal(err)
	}
	p := r.DVIPAs[0].Ports[0]
	if r.CRT.IPv4Entries != 1<<20 || r.Data.Idle.Spin != Duration(50*time.Microsecond) || r.Data.Lcores != 1 || r.Data.CPUs != nil ||
		p.Timeouts.Offer != Duration(200*time.Millisecond) || p.Window != 32768 || p.Protocol != "http" {
		t.Errorf("%+v", r)
	}
}

func TestListenerDefaultsToTheJobsOwn(t *testing.T) {
	target, err := parseTarget("x", []byte(readFile(t, "testdata/target.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	if got := target.Jobs[0].Listener.String(); got != "10.77.0.10:80" {
		t.Error(got)
	}
}

func TestDurationPrintsAsWritten(t *testing.T) {
	for _, text := range []string{"0s", "50us", "1.5ms", "20ms", "10s", "1m", "1m30s", "1h", "24h", "1h0m5s", "10m"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.String() != text {
			t.Errorf("%s became %s, %v", text, d, err)
		}
	}
}

func TestLargeFilesAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(path, []byte(strings.Repeat("#\n", MaxSize/2)+"#"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadRouter(path); !errors.Is(err, ErrTooLarge) {
		t.Errorf("router: %v", err)
	}
	if _, err := LoadTarget(path); !errors.Is(err, ErrTooLarge) {
		t.Errorf("target: %v", err)
	}
}

func TestMissingFile(t *testing.T) {
	if _, err := LoadRouter(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

func TestCheckFilesNamesThoseThatCannotBeRead(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("rh1.pem", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("rh1.key", 0o700); err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(routerText, "KEY", "rh1.key")
	r, err := parseRouter("baton.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := "baton.yaml:2:28: xcf.ca: open ca.pem: no such file or directory\n" +
		"baton.yaml:2:58: xcf.key: rh1.key is not a regular file"
	if got := fmt.Sprint(r.CheckFiles()); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if again := fmt.Sprint(r.CheckFiles()); again != want {
		t.Errorf("second time: %s", again)
	}
}

const routerText = `{host: h, data: {ports: [{device: d, address: 10.0.0.1/8}]},
 xcf: {listen: ":1",   ca: ca.pem,  cert: rh1.pem,  key: KEY},
 dvipas: [{address: 10.0.0.2, ports: [{port: 1, http: {default: j}}]}],
 jobs: {j: {hosts: [t]}}, targets: {t: {address: 10.0.0.3}}}`

// BenchmarkLoad shows that the time per rule does not grow with their number: no check compares each with each.
func BenchmarkLoad(b *testing.B) {
	base, err := os.ReadFile("testdata/router.yaml")
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{100, 1000, 10000} {
		var rules strings.Builder
		for i := range n {
			fmt.Fprintf(&rules, "            - { host: h%d.example, path: /p%d/, job: web-%c }\n", i, i, "ab"[i%2])
		}
		text := []byte(strings.Replace(string(base), "          rules:\n", "          rules:\n"+rules.String(), 1))
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if _, err := parseRouter("x", text); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/rule")
		})
	}
}

func FuzzRouter(f *testing.F) {
	seed(f, routerExample, "testdata/router.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := parseRouter("x", data); (r == nil) == (err == nil) {
			t.Errorf("%v, %v", r, err)
		}
	})
}

func FuzzTarget(f *testing.F) {
	seed(f, targetExample, "testdata/target.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		if target, err := parseTarget("x", data); (target == nil) == (err == nil) {
			t.Errorf("%v, %v", target, err)
		}
	})
}

func seed(f *testing.F, paths ...string) {
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, text := range []string{
		"", "- - -", "? a\n: b", "&a *a", "!!str a", "a: |\n  b", "{a: [b, {c: d}]}", "'", "%YAML 1.2\n---\n",
	} {
		f.Add([]byte(text))
	}
}
