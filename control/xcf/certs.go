package xcf

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// How long the certificates that this package makes are valid unless told otherwise.
const (
	CAValidity   = 10 * 365 * 24 * time.Hour
	HostValidity = 365 * 24 * time.Hour
)

// backdate lets a certificate be used at once on a host whose clock is a little behind.
const backdate = 5 * time.Minute

// CreateCA makes the cluster's certificate authority: an ECDSA P-256 key and its self-signed certificate, in dir/ca.key
// and dir/ca.pem, both of mode 0600. It makes dir if need be, and overwrites nothing (os.ErrExist).
func CreateCA(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create CA: %w", err)
	}
	template, err := newTemplate("baton cluster CA", CAValidity)
	if err != nil {
		return fmt.Errorf("create CA: %w", err)
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.MaxPathLenZero = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("create CA: %w", err)
	}
	if err := issue(dir, "ca", template, template, key, key); err != nil {
		return fmt.Errorf("create CA: %w", err)
	}
	return nil
}

// IssueHost makes key and certificate of a host, dir/NAME.key and dir/NAME.pem (mode 0600), signed by the CA in dir.
// The certificate's URI SAN carries role and name; ips are added as IP SANs, for people and other tools: Baton itself
// goes by the URI. validity 0 means HostValidity; a negative one makes a certificate that has expired already. It
// overwrites nothing (os.ErrExist).
func IssueHost(dir string, role Role, name string, validity time.Duration, ips ...netip.Addr) error {
	id := Identity{Role: role, Name: name}
	if err := id.check(); err != nil {
		return fmt.Errorf("issue certificate: %w", err)
	}
	if name == "ca" {
		return fmt.Errorf("issue certificate: %w: ca is the certificate authority's own file name", ErrName)
	}
	caCert, caKey, err := loadCA(dir)
	if err != nil {
		return fmt.Errorf("issue certificate of %s: %w", id, err)
	}
	template, err := hostTemplate(id, validity, ips)
	if err != nil {
		return fmt.Errorf("issue certificate of %s: %w", id, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("issue certificate of %s: %w", id, err)
	}
	if err := issue(dir, name, template, caCert, key, caKey); err != nil {
		return fmt.Errorf("issue certificate of %s: %w", id, err)
	}
	return nil
}

// hostTemplate is the certificate of id before it is signed.
func hostTemplate(id Identity, validity time.Duration, ips []netip.Addr) (*x509.Certificate, error) {
	if validity == 0 {
		validity = HostValidity
	}
	template, err := newTemplate(id.Name, validity)
	if err != nil {
		return nil, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.URIs = []*url.URL{id.url()}
	for _, ip := range ips {
		template.IPAddresses = append(template.IPAddresses, net.IP(ip.Unmap().AsSlice()))
	}
	return template, nil
}

// newTemplate fills in what all certificates have. A negative validity ends in the past, and begins before that.
func newTemplate(commonName string, validity time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	now := time.Now()
	begin := now.Add(-backdate)
	if validity < 0 {
		begin = now.Add(validity - backdate)
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{"baton"}, CommonName: commonName},
		NotBefore:    begin,
		NotAfter:     now.Add(validity),
	}, nil
}

// issue signs a certificate and writes it and its key. If the second file cannot be written the first is removed.
func issue(dir, name string, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) error {
	cert, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	keyFile, certFile := filepath.Join(dir, name+".key"), filepath.Join(dir, name+".pem")
	if err := writePEM(keyFile, "PRIVATE KEY", keyDER); err != nil {
		return err
	}
	if err := writePEM(certFile, "CERTIFICATE", cert); err != nil {
		_ = os.Remove(keyFile)
		return err
	}
	return nil
}

// writePEM makes a file that must not exist yet.
func writePEM(path, block string, der []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err // names the operation and the path
	}
	if err := pem.Encode(f, &pem.Block{Type: block, Bytes: der}); err != nil {
		_ = f.Close()
		return fmt.Errorf("write %s: %w", path, err)
	}
	return f.Close()
}

// loadCA reads what CreateCA made.
func loadCA(dir string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certPath, keyPath := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key")
	certs, err := readCertificates(certPath)
	if err != nil {
		return nil, nil, err
	}
	if err := checkValidity(certPath, certs[0], time.Now()); err != nil {
		return nil, nil, err
	}
	text, err := os.ReadFile(keyPath)
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, nil, fmt.Errorf("read %s: no PEM block", keyPath)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", keyPath, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, fmt.Errorf("read %s: %T is no ECDSA key", keyPath, parsed)
	}
	return certs[0], key, nil
}

// readCertificates reads the certificates of a PEM file: at least one, in their order.
func readCertificates(path string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err // names the path
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("read %s: no certificate in it", path)
	}
	return certs, nil
}
