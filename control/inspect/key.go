package inspect

import (
	"errors"
	"fmt"
	"iter"
	"strings"
)

// ErrBy is returned for a rule whose choice goes by what a client cannot have.
var ErrBy = errors.New("bad key")

// key is what of a request a map or a hash goes by.
type key struct {
	kind keyKind
	name string // byHeader, byCookie, byQuery
}

type keyKind uint8

const (
	byHost keyKind = iota
	byPath
	byHeader
	byCookie
	byQuery
)

var keyKinds = map[string]keyKind{"": byHost, "host": byHost, "path": byPath, "header": byHeader, "cookie": byCookie, "query": byQuery}

// key reads By.
func (r Rule) key() (key, error) {
	word, name, _ := strings.Cut(r.By, " ")
	kind, ok := keyKinds[word]
	k := key{kind, name}
	switch named := kind >= byHeader; {
	case !ok, named && !consistsOf([]byte(name), tokenOctet), named == (name == ""):
		return k, fmt.Errorf("%w: %q: want host, path, header NAME, cookie NAME or query NAME", ErrBy, r.By)
	case r.Job != "" && r.By != "":
		return k, fmt.Errorf("%w: %q is for a map or a hash, the rule has a job", ErrBy, r.By)
	}
	return k, nil
}

// normal is a choice whose map has its keys in the form that is compared.
func (k key) normal(c Choice) (Choice, error) {
	switch k.kind {
	case byHost:
		return c.normal(parseHost)
	case byPath:
		return c.normal(parsePath)
	case byHeader, byCookie, byQuery:
	}
	return c, nil
}

// job looks up a normal choice by what a request has; "" if it has nothing, or what the map does not have.
func (k key) job(c *Choice, s *subject) string {
	if c.Job != "" {
		return c.Job
	}
	switch k.kind {
	case byHost:
		return c.ofHost(s.host)
	case byPath:
		return c.ofPath(s.path)
	case byHeader:
		return c.ofFirst(s.headers(k.name))
	case byCookie:
		return c.ofFirst(s.cookies(k.name))
	case byQuery:
		return c.ofFirst(parameters(s.query, k.name))
	}
	return ""
}

// ofHost is of for a normal host. A map may have a name above it, the longest of which decides.
func (c *Choice) ofHost(host string) string {
	if host == "" {
		return ""
	}
	job := c.of(host)
	for i := strings.IndexByte(host, '.'); job == "" && i >= 0; {
		job = c.Map[host[i:]]
		next := strings.IndexByte(host[i+1:], '.')
		if next < 0 {
			break
		}
		i += 1 + next
	}
	return job
}

// ofPath is of for a normal path. A map may have what it begins with, the longest of which decides.
func (c *Choice) ofPath(path string) string {
	if path == "" {
		return ""
	}
	job := c.of(path)
	for i := strings.LastIndexByte(path, '/'); job == "" && i >= 0; i = strings.LastIndexByte(path[:i], '/') {
		job = c.Map[path[:i+1]]
	}
	return job
}

// ofFirst is of for the first of some values.
func (c *Choice) ofFirst(values iter.Seq[string]) string {
	for v := range values {
		return c.of(v)
	}
	return ""
}
