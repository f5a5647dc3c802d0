package xcf

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Role is what a host does in the cluster.
type Role string

// The roles.
const (
	RoleRouter Role = "router" // owns DVIPAs, hands connections over
	RoleTarget Role = "target" // a backend, takes connections
)

// Errors of identities.
var (
	// ErrIdentity is returned for a certificate without exactly one baton:// URI, or with a malformed one.
	ErrIdentity = errors.New("certificate names no host")
	// ErrRole is returned for a host that has another role than the stream asks for.
	ErrRole = errors.New("wrong role")
	// ErrName is returned for a host that is not the one expected.
	ErrName = errors.New("wrong name")
)

// maxName bounds a host name, octets: it goes into file names, metrics labels and Hello.
const maxName = 63

// Identity is who a host is to the cluster: the URI SAN of its certificate.
type Identity struct {
	Role Role
	Name string // 1 to 63 of a-z A-Z 0-9 - _ . and no dot in front
}

// String prints the identity as its URI, baton://ROLE/NAME.
func (id Identity) String() string { return "baton://" + string(id.Role) + "/" + id.Name }

// check returns why id cannot be used, or nil.
func (id Identity) check() error {
	if id.Role != RoleRouter && id.Role != RoleTarget {
		return fmt.Errorf("%w: %q is neither %s nor %s", ErrRole, id.Role, RoleRouter, RoleTarget)
	}
	if id.Name == "" || len(id.Name) > maxName || id.Name[0] == '.' || strings.ContainsFunc(id.Name, notInName) {
		return fmt.Errorf("%w: %q is not 1 to %d of a-z, A-Z, 0-9, '-', '_', '.'", ErrName, id.Name, maxName)
	}
	return nil
}

// notInName reports whether r may not be part of a host name.
func notInName(r rune) bool {
	alphanumeric := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	return !alphanumeric && r != '-' && r != '_' && r != '.'
}

// url is the identity as certificates carry it.
func (id Identity) url() *url.URL {
	return &url.URL{Scheme: "baton", Host: string(id.Role), Path: "/" + id.Name}
}

// identityOf reads the identity out of a certificate, which the caller has verified.
func identityOf(cert *x509.Certificate) (Identity, error) {
	var found []Identity
	for _, u := range cert.URIs {
		if u.Scheme == "baton" {
			found = append(found, Identity{Role: Role(u.Host), Name: strings.TrimPrefix(u.Path, "/")})
		}
	}
	if len(found) != 1 {
		return Identity{}, fmt.Errorf("%w: subject %q has %d baton:// URIs, not 1", ErrIdentity, cert.Subject, len(found))
	}
	if err := found[0].check(); err != nil {
		return Identity{}, fmt.Errorf("%w: subject %q: %w", ErrIdentity, cert.Subject, err)
	}
	return found[0], nil
}

// expect returns nil if id has the role, and the name unless that is empty.
func (id Identity) expect(role Role, name string) error {
	if id.Role != role {
		return fmt.Errorf("%w: it is %s, a %s is wanted", ErrRole, id, role)
	}
	if name != "" && id.Name != name {
		return fmt.Errorf("%w: it is %s, host %s is wanted", ErrName, id, name)
	}
	return nil
}
