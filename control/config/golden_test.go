package config

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what the loads say into testdata/*.golden")

// A golden file lists edits of the valid file of the same name: "- line" is taken out ("- *": all of them), "+ line"
// put in its place, "> problem" expected, "> warning: problem" as well, and nothing for a file that is fine.

func TestWhatIsWrongAndWouldBeRight(t *testing.T) {
	checkGolden(t, "router", func(data string) string {
		r, err := parseRouter("baton.yaml", []byte(data))
		if err != nil {
			return messages(t, err)
		}
		return warnings(r.Warnings())
	})
	checkGolden(t, "target", func(data string) string {
		target, err := parseTarget("target.yaml", []byte(data))
		if err != nil {
			return messages(t, err)
		}
		return warnings(target.Warnings())
	})
	checkGolden(t, "userspace", func(data string) string {
		target, err := parseUserTarget("baton.yaml", []byte(data))
		if err != nil {
			return messages(t, err)
		}
		return warnings(target.Warnings())
	})
}

// messages is what a failed load says, in golden form.
func messages(t *testing.T, err error) string {
	t.Helper()
	if !errors.Is(err, ErrInvalid) {
		t.Errorf("no ErrInvalid: %v", err)
	}
	return "> " + strings.ReplaceAll(err.Error(), "\n", "\n> ") + "\n"
}

func warnings(all []*Problem) (text string) {
	for _, w := range all {
		text += fmt.Sprintf("> warning: %v\n", w)
	}
	return text
}

func checkGolden(t *testing.T, name string, load func(string) string) {
	t.Helper()
	base, golden := readFile(t, "testdata/"+name+".yaml"), readFile(t, "testdata/"+name+".golden")
	if got := load(base); got != "" {
		t.Fatalf("testdata/%s.yaml: %s", name, got)
	}
	var rewritten strings.Builder
	for block := range strings.SplitSeq(strings.TrimPrefix(golden, "# "), "\n# ") {
		title, rest, _ := strings.Cut(strings.TrimSuffix(block, "\n")+"\n", "\n")
		edits, want, _ := strings.Cut("\n"+rest, "\n> ")
		if want != "" {
			want = "> " + want
		}
		edits = strings.TrimSuffix(strings.TrimPrefix(edits, "\n"), "\n")
		t.Run(name+"/"+title, func(t *testing.T) {
			got := load(edit(t, base, edits))
			fmt.Fprintf(&rewritten, "# %s\n%s\n%s", title, edits, got)
			if got != want && !*update {
				t.Errorf("got:\n%swant:\n%s", got, want)
			}
		})
	}
	if *update {
		if err := os.WriteFile("testdata/"+name+".golden", []byte(rewritten.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// edit carries out "- line" and "+ line" edits. Lines taken out must be there.
func edit(t *testing.T, base, edits string) string {
	t.Helper()
	text, at := "\n"+base, 0
	for line := range strings.SplitSeq(edits, "\n") {
		switch body := line[min(2, len(line)):]; {
		case line == "- *":
			text, at = "\n", 1
		case strings.HasPrefix(line, "- "):
			at = strings.Index(text, "\n"+body+"\n") + 1
			if at == 0 {
				t.Fatalf("no line %q", body)
			}
			text = text[:at] + text[at+len(body)+1:]
		case strings.HasPrefix(line, "+ "):
			text = text[:at] + strings.ReplaceAll(body, "�", "\xff") + "\n" + text[at:]
			at += len(strings.ReplaceAll(body, "�", "\xff")) + 1
		default:
			t.Fatalf("no edit: %q", line)
		}
	}
	return text[1:]
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
