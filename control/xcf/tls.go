package xcf

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Errors of certificates and handshakes.
var (
	// ErrExpired is returned for a certificate that is not valid now.
	ErrExpired = errors.New("certificate is expired or not yet valid (xcf-expired)")
	// ErrUnknownCA is returned for a certificate that the cluster's CA did not sign.
	ErrUnknownCA = errors.New("certificate is not signed by our CA")
	// ErrRefused is returned when the peer refuses us; only its log says why, the text says what is likely.
	ErrRefused = errors.New("refused by peer")
)

// Files are the PEM files of a host's identity. They are read again for each stream.
type Files struct {
	CA   string // the cluster's CA, one or more certificates
	Cert string // the host's certificate
	Key  string // its private key
}

// credentials is what Files contain.
type credentials struct {
	id    Identity
	cert  tls.Certificate
	roots *x509.CertPool
}

// Check reads the files as every stream will, and returns who the host is: for start-up and for the check commands.
// The errors name the file and what is wrong with it.
func (f Files) Check(role Role, name string) (Identity, error) {
	c, err := f.load(role, name, time.Now())
	if err != nil {
		return Identity{}, err
	}
	return c.id, nil
}

// load reads the files. The certificate must be that of the given host and be valid at now, and its CA must have signed
// it; a mistake there would only show as a refusal at the other end.
func (f Files) load(role Role, name string, now time.Time) (*credentials, error) {
	authorities, err := readCertificates(f.CA)
	if err != nil {
		return nil, fmt.Errorf("load CA: %w", err)
	}
	roots := x509.NewCertPool()
	for _, ca := range authorities {
		if err := checkValidity(f.CA, ca, now); err != nil {
			return nil, err
		}
		roots.AddCert(ca)
	}
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("load certificate %s with key %s: %w", f.Cert, f.Key, err)
	}
	if err := checkValidity(f.Cert, cert.Leaf, now); err != nil {
		return nil, err
	}
	id, err := verifyChain([]*x509.Certificate{cert.Leaf}, roots, now)
	if err != nil {
		return nil, fmt.Errorf("%s: %w (CA file: %s)", f.Cert, err, f.CA)
	}
	if err := id.expect(role, name); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Cert, err)
	}
	return &credentials{id: id, cert: cert, roots: roots}, nil
}

// checkValidity returns ErrExpired, with the dates, when cert is not valid at now.
func checkValidity(path string, cert *x509.Certificate, now time.Time) error {
	if now.After(cert.NotAfter) {
		return fmt.Errorf("%s: %w: it ended %s; issue a new one with batonctl certs",
			path, ErrExpired, cert.NotAfter.UTC().Format(time.RFC3339))
	}
	if now.Before(cert.NotBefore) {
		return fmt.Errorf("%s: %w: it begins %s; is this host's clock right?",
			path, ErrExpired, cert.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// verifyChain checks that the CA signed the first of certs and that it is valid at now, and returns its identity.
func verifyChain(certs []*x509.Certificate, roots *x509.CertPool, now time.Time) (Identity, error) {
	if len(certs) == 0 {
		return Identity{}, fmt.Errorf("%w: none was sent", ErrIdentity)
	}
	leaf, intermediates := certs[0], x509.NewCertPool()
	for _, c := range certs[1:] {
		intermediates.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return Identity{}, explainVerify(leaf, err, now)
	}
	return identityOf(leaf)
}

// explainVerify turns the errors of x509 that operators meet into one line that says what is wrong.
func explainVerify(leaf *x509.Certificate, err error, now time.Time) error {
	subject := fmt.Sprintf("certificate of %q", leaf.Subject.CommonName)
	if len(leaf.URIs) > 0 {
		subject = "certificate of " + leaf.URIs[0].String()
	}
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return checkValidity(subject, invalid.Cert, now)
	case errors.As(err, &unknown):
		return fmt.Errorf("%s: %w (issuer %q)", subject, ErrUnknownCA, leaf.Issuer.CommonName)
	}
	return fmt.Errorf("%s: %w", subject, err)
}

// alerts are TLS alerts as crypto/tls words them, and what the operator of the refused host has to look at.
var alerts = []struct{ text, means string }{
	{"unknown certificate authority", "it does not know the CA that signed our certificate"},
	{"expired certificate", "our certificate is expired (xcf-expired), or its clock is wrong"},
	{"bad certificate", "our certificate's CA, date, role or name is not what it wants; its log says which"},
	{"certificate required", "it got no certificate from us"},
	{"protocol version", "it does not speak TLS 1.3"},
}

// explainAlert turns a TLS alert of the peer into ErrRefused, and leaves other errors as they are.
func explainAlert(err error) error {
	if err == nil || !strings.Contains(err.Error(), "remote error: tls: ") {
		return err
	}
	for _, a := range alerts {
		if strings.HasSuffix(err.Error(), a.text) {
			return fmt.Errorf("%w: %s (%w)", ErrRefused, a.means, err)
		}
	}
	return fmt.Errorf("%w: %w", ErrRefused, err)
}

// tlsConfig is the configuration of one stream: TLS 1.3, no resumption (each stream verifies anew), and a peer that
// has the role, and the name unless that is empty. The identity is put in *peer.
//
// Chain and identity are checked in VerifyConnection on both sides, because the peer's name is in a URI, which
// crypto/tls does not compare with a server name.
func (c *credentials) tlsConfig(role Role, name string, peer *Identity) *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		Certificates:                []tls.Certificate{c.cert},
		ClientAuth:                  tls.RequireAnyClientCert,
		InsecureSkipVerify:          true, // VerifyConnection does it
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true, // a message should leave in as few records as it can
		VerifyConnection: func(s tls.ConnectionState) error {
			id, err := verifyChain(s.PeerCertificates, c.roots, time.Now())
			if err != nil {
				return err
			}
			*peer = id
			return id.expect(role, name)
		},
	}
}
