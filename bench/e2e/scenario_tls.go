package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"baton/bench/lab"
)

// encrypted is the usual pair of sites behind TLS, which the routing host passes through.
var encrypted = func() lab.Cluster {
	c := lab.TwoSites()
	c.Section = `protocol: tls
tls:
  rules:
    - { sni: a.example, job: web-a }
    - { sni: "*.b.example", job: web-b }`
	return c
}()

var tlsScenarios = []Scenario{
	{
		Name: "tls-sni-nginx",
		Doc: "the server name of a ClientHello, in one segment or many, decides which nginx completes the handshake; " +
			"a strange one gets an alert",
		Shape:  Shape{Cluster: encrypted, Server: tlsNginx},
		Expect: Expect{Connections: 5, Transferred: 4},
		Run:    runTLS,
	},
}

const tlsNginxConfig = `
daemon off; user root; worker_processes 1; pid nginx.pid; error_log stderr notice;
events { worker_connections 256; }
http {
	access_log off; lingering_close always;
	client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
	server {
		listen 80 ssl;
		ssl_certificate site.pem; ssl_certificate_key site.key;
		location / { default_type text/plain; return 200 "%s $ssl_server_name\n"; }
	}
}
`

// tlsNginx starts nginx with a certificate that is its own authority and good for both sites. It lingers when it closes:
// otherwise its kernel answers the client's close_notify, which comes after that, by a reset.
func tlsNginx(e *Env, h *lab.Host) error {
	_, err := h.Run(e.Ctx, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
		"-days", "2", "-subj", "/CN="+h.Name, "-addext", "subjectAltName=DNS:a.example,DNS:*.b.example",
		"-keyout", h.Path("site.key"), "-out", h.Path("site.pem"))
	if err != nil {
		return err
	}
	config := h.Path("tls.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, tlsNginxConfig, h.Name), 0o644); err != nil {
		return err
	}
	p, err := h.Start("nginx", "nginx", "-e", "stderr", "-p", h.Dir(), "-c", config)
	if err != nil {
		return err
	}
	return p.Ready(e.Ctx, func() error {
		c, err := h.Dial(e.Ctx, netip.AddrPort{}, netip.AddrPortFrom(h.Data.Addr(), 80))
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// runTLS trusts, for each site, only the certificate of the target that has to serve it.
func runTLS(e *Env) error {
	t1, t2 := e.Target(1), e.Target(2)
	return errors.Join(e.curlTLS("a.example", t1), e.openssl("www.b.example", t2), e.piecewise("a.example", t1),
		e.piecewise("www.b.example", t2), e.alerted("nobody.example"))
}

// curlTLS fetches a page by curl.
func (e *Env) curlTLS(site string, from *lab.Host) error {
	out, err := e.Client.Run(e.Ctx, "curl", "--silent", "--show-error", "--cacert", from.Path("site.pem"),
		"--connect-to", site+":443:"+service.String(), "https://"+site+"/")
	return errors.Join(err, wantPage(out, site, from))
}

// openssl fetches a page by openssl s_client.
func (e *Env) openssl(site string, from *lab.Host) error {
	script := fmt.Sprintf(`printf 'GET / HTTP/1.1\r\nHost: %[1]s\r\nConnection: close\r\n\r\n' |
openssl s_client -quiet -connect %[2]v -servername %[1]s -CAfile %[3]s -verify_return_error`, site, service, from.Path("site.pem"))
	out, err := e.Client.Run(e.Ctx, "sh", "-c", script)
	return errors.Join(err, wantPage(out, site, from))
}

// alerted checks that openssl s_client is told that nobody has the name.
func (e *Env) alerted(site string) error {
	_, err := e.Client.Run(e.Ctx, "openssl", "s_client", "-connect", service.String(), "-servername", site)
	if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		return fmt.Errorf("%s: want the alert unrecognized_name: %w", site, err)
	}
	return nil
}

// wantPage checks the page of a target, the last line of out.
func wantPage(out []byte, site string, from *lab.Host) error {
	if line := from.Name + " " + site + "\n"; !strings.HasSuffix(string(out), line) {
		return fmt.Errorf("%s: %.200q, want %q at its end", site, out, line)
	}
	return nil
}

// helloPiece is smaller than any ClientHello.
const helloPiece = 50

// piecewise fetches a page on a connection whose ClientHello comes in small segments.
func (e *Env) piecewise(site string, from *lab.Host) error {
	pem, err := os.ReadFile(from.Path("site.pem"))
	if err != nil {
		return err
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(pem)
	c, err := e.Dial()
	if err != nil {
		return err
	}
	s := tls.Client(slowly{c}, &tls.Config{ServerName: site, RootCAs: trusted, MinVersion: tls.VersionTLS12})
	defer func() { _ = s.Close() }() // closed below when all went well
	if _, err := s.Write(lab.Request(site, "/")); err != nil {
		return err
	}
	r, err := lab.NewResponses(s).Next()
	if err != nil {
		return err
	}
	return errors.Join(wantPage(r.Data, site, from), s.Close())
}

// slowly writes in pieces, a segment each.
type slowly struct{ *lab.Conn }

// Write implements net.Conn.
func (c slowly) Write(p []byte) (n int, err error) {
	for piece := range slices.Chunk(p, helloPiece) {
		m, err := c.Conn.Write(piece)
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}
