package readme

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var stop = regexp.MustCompile("`([\\w/.]+\\.(?:go|c|h)):([\\w.]+)`")

// TestStopsOfAPacketsWayExist looks for each `file:Symbol` of the README. A Go symbol is a function, a type, or
// Type.method; a C symbol is a function that the file defines.
func TestStopsOfAPacketsWayExist(t *testing.T) {
	stops := stop.FindAllStringSubmatch(read(t, "README.md"), -1)
	if len(stops) < 15 {
		t.Fatalf("the README names %d stops, want the whole way", len(stops))
	}
	for _, s := range stops {
		file, symbol := s[1], s[2]
		defined := definesC
		if strings.HasSuffix(file, ".go") {
			defined = definesGo
		}
		if !defined(t, file, symbol) {
			t.Errorf("%s does not define %s", file, symbol)
		}
	}
}

func definesC(t *testing.T, file, symbol string) bool {
	definition := regexp.MustCompile(`(?m)^[a-z][\w *]*\b` + regexp.QuoteMeta(symbol) + `\([^;]*$`)
	return definition.MatchString(read(t, file))
}

func definesGo(t *testing.T, file, symbol string) bool {
	f, err := parser.ParseFile(token.NewFileSet(), file, read(t, file), parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if name(d) == symbol {
				return true
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if s, ok := s.(*ast.TypeSpec); ok && s.Name.Name == symbol {
					return true
				}
			}
		}
	}
	return false
}

// name is a function's name, or Type.method.
func name(d *ast.FuncDecl) string {
	if d.Recv == nil {
		return d.Name.Name
	}
	receiver := d.Recv.List[0].Type
	if pointer, ok := receiver.(*ast.StarExpr); ok {
		receiver = pointer.X
	}
	if id, ok := receiver.(*ast.Ident); ok {
		return id.Name + "." + d.Name.Name
	}
	return d.Name.Name
}

func TestLinksLeadSomewhere(t *testing.T) {
	for _, link := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(read(t, "README.md"), -1) {
		if _, err := os.Stat(filepath.Join(root, link[1])); err != nil {
			t.Errorf("link to %s: %v", link[1], err)
		}
	}
}

func TestMakeTargetsExist(t *testing.T) {
	makefile := read(t, "Makefile")
	targets := regexp.MustCompile(`\bmake ([a-z][a-z0-9-]*)`).FindAllStringSubmatch(read(t, "README.md"), -1)
	if len(targets) == 0 {
		t.Fatal("the README names no make target")
	}
	for _, m := range targets {
		if !regexp.MustCompile(`(?m)^` + m[1] + `:`).MatchString(makefile) {
			t.Errorf("make %s: the Makefile has no such target", m[1])
		}
	}
}
