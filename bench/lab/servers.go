package lab

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"text/template"
	"time"
)

// All servers answer any request on port 80 of any address, or on a socket of a target in userspace, with the header "X-Target: HOST" and a body of one line,
// "HOST METHOD HTTP-HOST PATH".

// nginxConfig: everything below its own prefix directory; wildcard listener, because the DVIPA may come later. PUT below
// /upload/ stores the body as a file of that name in the host's directory.
var nginxConfig = template.Must(template.New("nginx").Parse(`
daemon off; user root; worker_processes 1; pid nginx.pid; error_log stderr notice;
events { worker_connections 2048; }
http {
	access_log access.log; default_type application/octet-stream; sendfile on; tcp_nopush on;
	keepalive_timeout {{.KeepAlive.Milliseconds}}ms; client_max_body_size 0; large_client_header_buffers 8 64k;
	client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
	server {
		listen {{.Listen}};
		add_header X-Target {{.Name}} always;
		add_header X-Client "{{if .Proxied}}$proxy_protocol_addr:$proxy_protocol_port{{else}}$remote_addr:$remote_port{{end}}" always;
		location / { default_type text/plain; return 200 "{{.Name}} $request_method $http_host $request_uri\n"; }
		location /static/ { root {{.Root}}; }
		location /upload/ { root .; dav_methods PUT; create_full_put_path on; }
	}
{{- with .Steady}}
	server { listen {{.}}; keepalive_timeout 65s; add_header X-Target {{$.Name}} always; location / { root {{$.Root}}; } }{{end}}
}
`))

var haproxyConfig = template.Must(template.New("haproxy").Parse(`
global
	maxconn 2000
defaults
	mode http
	timeout client 60s
	timeout server 60s
	timeout connect 5s
frontend web
	bind {{.Listen}}
	http-request return status 200 content-type text/plain hdr X-Target {{.Name}} lf-string "{{.Name}} %[method] %[req.hdr(host)] %[path]\n"
`))

//go:embed server.py
var pythonServer string

// ServerOptions adjust a server. The zero value listens on every address, port 80.
type ServerOptions struct {
	Listen    string        // nginx, haproxy: as in their configuration; "" is 80 or :80
	KeepAlive time.Duration // nginx: keepalive_timeout; 0 means 65 s
	Steady    int           // nginx: another port with files, whose keepalive_timeout is 65 s; 0: none
	Proxied   bool          // nginx: the PROXY protocol says who the client is; as Listen, chosen where the target is in userspace
}

// Nginx starts Debian's nginx with its own configuration and directory, and waits until it answers.
func (h *Host) Nginx(ctx context.Context, o ServerOptions) (*Process, error) {
	switch {
	case h.Userspace:
		o.Listen, o.Proxied = "unix:"+h.ApplicationSocket()+" proxy_protocol", true
	case o.Listen == "":
		o.Listen = "80"
	}
	if o.KeepAlive == 0 {
		o.KeepAlive = 65 * time.Second
	}
	config := h.Path("nginx.conf")
	if err := errors.Join(render(config, nginxConfig, h, o), os.MkdirAll(h.Path("upload"), 0o755)); err != nil {
		return nil, err
	}
	return h.server(ctx, "nginx", "nginx", "-e", "stderr", "-p", h.Dir(), "-c", config)
}

// Haproxy starts Debian's haproxy, and waits until it answers.
func (h *Host) Haproxy(ctx context.Context, o ServerOptions) (*Process, error) {
	if o.Listen == "" {
		o.Listen = ":80"
	}
	config := h.Path("haproxy.cfg")
	if err := render(config, haproxyConfig, h, o); err != nil {
		return nil, err
	}
	return h.server(ctx, "haproxy", "haproxy", "-db", "-f", config)
}

// Python starts a server on Python's standard library, and waits until it answers.
func (h *Host) Python(ctx context.Context) (*Process, error) {
	script := h.Path("server.py")
	if err := os.WriteFile(script, []byte(pythonServer), 0o644); err != nil {
		return nil, err
	}
	return h.server(ctx, "python", "/usr/bin/python3", script, h.Name)
}

// Go starts net/http's server in this process, on a listener on the host. Close it with the returned server.
func (h *Host) Go(l net.Listener) *http.Server {
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Target", h.Name)
		_, _ = fmt.Fprintf(w, "%s %s %s %s\n", h.Name, r.Method, r.Host, r.URL.Path) // the client may be gone
	})}
	go func() { _ = server.Serve(l) }() // ends with Close
	h.lab.atClose = append(h.lab.atClose, server.Close)
	return server
}

// Serve serves the connections of a listener on the host, in this process. The lab's end closes the listener; serve has to
// close its connection.
func (h *Host) Serve(l net.Listener, serve func(net.Conn)) {
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	h.lab.atClose = append(h.lab.atClose, l.Close)
}

func render(path string, t *template.Template, h *Host, o ServerOptions) error {
	var text bytes.Buffer
	err := t.Execute(&text, struct {
		ServerOptions
		Name, Root string
	}{o, h.Name, h.lab.Dir})
	if err != nil {
		return err
	}
	return os.WriteFile(path, text.Bytes(), 0o644)
}

// server starts a program and waits until it answers on the host's port 80, or takes connections on its socket.
func (h *Host) server(ctx context.Context, name string, argv ...string) (*Process, error) {
	p, err := h.Start(name, argv...)
	if err != nil {
		return nil, err
	}
	return p, p.Ready(ctx, func() error {
		if h.Userspace {
			return listens(ctx, h.ApplicationSocket())
		}
		return h.answers(ctx)
	})
}

// listens connects to a Unix socket.
func listens(ctx context.Context, path string) error {
	c, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	return c.Close()
}

// answers connects to the host's own port 80 and asks for a page.
func (h *Host) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	c, err := h.Dial(ctx, netip.AddrPort{}, netip.AddrPortFrom(h.Data.Addr(), 80))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }() // only a probe
	r, err := RoundTrip(ctx, c, Request("ready.example", "/ready"))
	if err != nil {
		return err
	}
	if r.StatusCode != http.StatusOK || r.Target() != h.Name {
		return fmt.Errorf("answers with status %d of %q", r.StatusCode, r.Target())
	}
	return nil
}
