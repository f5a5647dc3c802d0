package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// LoadRouter reads the file of a routing host, and refuses that of another role. The error joins a Problem for each thing
// that is wrong.
func LoadRouter(path string) (*Router, error) {
	data, err := read(path, MaxSize)
	if err != nil {
		return nil, err
	}
	return parseRouter(path, data)
}

// LoadTarget reads the file of a target host. The error joins a Problem for each thing that is wrong.
func LoadTarget(path string) (*Target, error) {
	data, err := read(path, MaxSize)
	if err != nil {
		return nil, err
	}
	return parseTarget(path, data)
}

// Baton is the configuration of `baton` in either of its roles: *Router or *UserTarget.
type Baton interface {
	Warnings() []*Problem
	CheckFiles() error
}

// LoadBaton reads the file of a host that runs `baton`; its key role says which of the two it is. The error joins a
// Problem for each thing that is wrong.
func LoadBaton(path string) (Baton, error) {
	data, err := read(path, MaxSize)
	if err != nil {
		return nil, err
	}
	if roleOf(data) == roleTarget {
		return orNil(parseUserTarget(path, data))
	}
	return orNil(parseRouter(path, data))
}

// orNil keeps a nil pointer from becoming an interface that is not nil.
func orNil[C Baton](c C, err error) (Baton, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}

// roleTarget is the role of a target host.
const roleTarget = "target"

// roleOf is the file's role, "" if there is none to be found: what is wrong with the file is told by those who load it.
func roleOf(data []byte) string {
	r := newReport("")
	root, ok := r.parse(data)
	if !ok {
		return ""
	}
	entries, _ := r.entries("", root)
	for _, e := range entries {
		if text, ok := e.value.(*ast.StringNode); ok && e.name == "role" {
			return text.Value
		}
	}
	return ""
}

func parseUserTarget(name string, data []byte) (*UserTarget, error) {
	t := &UserTarget{report: newReport(name)}
	return parsed(t, t.report, data)
}

func parseRouter(name string, data []byte) (*Router, error) {
	r := &Router{report: newReport(name)}
	return parsed(r, r.report, data)
}

func parseTarget(name string, data []byte) (*Target, error) {
	t := &Target{report: newReport(name)}
	return parsed(t, t.report, data)
}

// parsed fills in a configuration from a file's text and checks it as a whole.
func parsed[C interface{ check(*report) }](c C, to *report, data []byte) (C, error) {
	if to.decode(data, c) {
		c.check(to)
	}
	sortProblems(to.warnings)
	if err := to.err(); err != nil {
		var none C
		return none, err
	}
	return c, nil
}

func newReport(name string) *report { return &report{file: name, places: map[string]place{}} }

// read returns the contents of a file of at most so many octets.
func read(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%w: %s has more than %d octets", ErrTooLarge, path, most)
	}
	return data, nil
}

// decode fills in what dst points to, and reports whether the file is sound enough for the checks of dst.
func (r *report) decode(data []byte, dst any) bool {
	root, ok := r.parse(data)
	if !ok {
		return false
	}
	r.value("", root, reflect.ValueOf(dst).Elem(), "")
	return len(r.problems) == 0
}

// parse returns the file's only document.
func (r *report) parse(data []byte) (ast.Node, bool) {
	if at, ok := badOctet(data); ok {
		r.syntax(at, "octet that is not UTF-8 text")
		return nil, false
	}
	if at, ok := tooDeep(data); ok {
		r.syntax(at, fmt.Sprintf("nested deeper than %d levels", maxDepth))
		return nil, false
	}
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		r.syntax(syntaxError(err))
		return nil, false
	}
	docs := slices.DeleteFunc(file.Docs, func(d *ast.DocumentNode) bool { return d.Body == nil })
	if len(docs) == 0 {
		r.syntax(place{1, 1}, "the file is empty")
		return nil, false
	}
	if _, isDirective := docs[0].Body.(*ast.DirectiveNode); len(docs) > 1 && !isDirective {
		r.syntax(placeOf(docs[1].Body), "second document: a file is one configuration, remove \"---\"")
		return nil, false
	}
	return docs[0].Body, true
}

func (r *report) syntax(at place, message string) {
	r.problems = append(r.problems, &Problem{File: r.file, Line: at.line, Column: at.column, Message: message})
}

func syntaxError(err error) (place, string) {
	var e *yaml.SyntaxError
	if !errors.As(err, &e) || e.Token == nil {
		return place{1, 1}, "not YAML: " + err.Error()
	}
	at := place{e.Token.Position.Line, e.Token.Position.Column}
	if strings.Contains(e.Message, "\t") || strings.Contains(e.Message, "tab character") {
		return at, "not YAML: a tab, where only spaces may indent"
	}
	return at, "not YAML: " + e.Message
}

// badOctet returns where the first octet is that is not UTF-8.
func badOctet(data []byte) (place, bool) {
	for i := 0; i < len(data); {
		c, n := utf8.DecodeRune(data[i:])
		if c == utf8.RuneError && n == 1 {
			return placeAt(data, i), true
		}
		i += n
	}
	return place{}, false
}

// maxDepth is how many levels of flow collections and indentation the parser, which is recursive, is given. The
// deepest key of a configuration is at level 7.
const maxDepth = 32

// tooDeep looks for lines with more openers of levels than the parser should meet. It knows nothing of quoting: text
// with that many brackets on end is refused as well.
func tooDeep(data []byte) (place, bool) {
	depth := 0
	for i, c := range data {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(depth-1, 0)
		}
		if depth > maxDepth {
			return placeAt(data, i), true
		}
	}
	return place{}, false
}

func placeAt(data []byte, i int) place {
	start := bytes.LastIndexByte(data[:i], '\n') + 1
	return place{bytes.Count(data[:i], []byte{'\n'}) + 1, utf8.RuneCount(data[start:i]) + 1}
}

func (r *report) checkFiles(paths map[string]string) error {
	found := &report{file: r.file, places: r.places}
	for key, path := range paths {
		if err := readable(path); err != nil {
			found.failf(key, "%v", err)
		}
	}
	return found.err()
}

// readable returns why path is no file that can be read, or nil.
func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	return nil
}
