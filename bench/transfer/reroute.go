package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"baton/bench/lab"
	"baton/bench/machine"
)

// Numbers of the measurement of requests that are routed anew.
const (
	closesAfter = 60 * time.Millisecond // nginx: an idle connection goes back; above the 40 ms after which the client acknowledges
	settles     = 10 * time.Millisecond
	proxyPort   = 80   // HAProxy: a connection to the server for each request
	reusePort   = 8081 // the same, which keeps those to the servers
)

// proxyConfig is HAProxy as a router of requests, as its manual has it.
const proxyConfig = `
global
	maxconn 2000
defaults
	mode http
	timeout client 60s
	timeout server 60s
	timeout connect 5s
	timeout http-keep-alive 60s
frontend close
	bind :%d
	option http-server-close
	use_backend close-b if { req.hdr(host) b.example }
	default_backend close-a
frontend reuse
	bind :%d
	use_backend reuse-b if { req.hdr(host) b.example }
	default_backend reuse-a
backend close-a
	option http-server-close
	server a %s:81
backend close-b
	option http-server-close
	server b %s:81
backend reuse-a
	http-reuse always
	server a %s:81
backend reuse-b
	http-reuse always
	server b %s:81
`

// rerouted is what was measured of requests that go to two servers in turn on one connection of the client.
type rerouted struct {
	Time     time.Time    `json:"time"`
	Commit   string       `json:"commit"`
	Modified bool         `json:"modified"` // as in Result
	Rounds   int          `json:"rounds"`
	Machine  Machine      `json:"machine"`
	Series   reroutes     `json:"series"`
	pages    [2][]byte    // requests, by the server
	hosts    [2]*lab.Host // servers
	body     []byte       // the file
	buf      []byte
}

// reroutes are its quantities. Defined in bench/README.md.
type reroutes struct {
	Baton  Series `json:"request_baton"`
	Close  Series `json:"request_haproxy_server_close"`
	Reuse  Series `json:"request_haproxy_reuse"`
	Direct Series `json:"request_direct"`
	Back   Series `json:"close_to_taken_back"`
}

// measureReroute makes a laboratory of its own, measures, and writes the result.
func measureReroute(ctx context.Context, o options) (err error) {
	if err := lab.CleanupStale(); err != nil {
		return err
	}
	r := &rerouted{Time: time.Now().UTC(), Rounds: o.rerouted, body: lab.Data(bodySize), buf: make([]byte, 64<<10)}
	if r.Commit, r.Modified, err = machine.Commit(ctx, ":!bench"); err != nil {
		return err
	}
	l, err := lab.New(lab.Options{Targets: 3, Hugepages: o.hugepages})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	b, err := r.start(ctx, l, o)
	if err != nil {
		return err
	}
	if r.Machine, err = b.machine(ctx); err != nil {
		return err
	}
	if err := l.Client.Do(func() error { return r.run(ctx, b) }); err != nil {
		return err
	}
	r.Machine.LoadAfter = machine.Load()
	if err := r.readBack(b); err != nil {
		return err
	}
	r.print(os.Stdout)
	return write(o.rerouteOut, r)
}

// start starts two servers, Baton before them, and HAProxy beside them.
func (r *rerouted) start(ctx context.Context, l *lab.Lab, o options) (*bench, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if _, err := l.File(bodySize); err != nil {
		return nil, err
	}
	for i, site := range []string{"a.example", "b.example"} {
		r.hosts[i] = l.Targets[i]
		r.pages[i] = lab.Request(site, fmt.Sprintf("/static/data-%d", bodySize))
		// Port 81, for the proxy and for direct requests, keeps connections.
		options := lab.ServerOptions{KeepAlive: closesAfter, Steady: 81}
		if _, err := l.Targets[i].Nginx(ctx, options); err != nil {
			return nil, err
		}
	}
	if err := startProxy(ctx, l); err != nil {
		return nil, err
	}
	cluster := lab.Cluster{Device: o.device, IdleSleep: o.idleSleep, Reroute: true,
		Rules: []lab.Rule{{Host: "a.example", Job: "a"}, {Host: "b.example", Job: "b"}},
		Jobs: []lab.Job{{Name: "a", Hosts: []string{l.Targets[0].Name}}, {Name: "b", Hosts: []string{l.Targets[1].Name}},
			{Name: "proxy", Hosts: []string{l.Targets[2].Name}}}} // every host of a lab has a job
	b := &bench{options: o, lab: l}
	var err error
	b.baton, err = l.Baton(ctx, o.bin, cluster)
	return b, err
}

func startProxy(ctx context.Context, l *lab.Lab) error {
	proxy, a, b := l.Targets[2], l.Targets[0].Data.Addr(), l.Targets[1].Data.Addr()
	config := proxy.Path("proxy.cfg")
	text := fmt.Sprintf(proxyConfig, proxyPort, reusePort, a, b, a, b)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	p, err := proxy.Start("proxy", "haproxy", "-db", "-f", config)
	if err != nil {
		return err
	}
	return p.Ready(ctx, func() error {
		c, err := proxy.Dial(ctx, netip.AddrPort{}, netip.AddrPortFrom(proxy.Data.Addr(), reusePort))
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// run makes the rounds: in each, one request over each way, to the server whose turn it is. A request through Baton begins
// when the connection is back.
func (r *rerouted) run(ctx context.Context, b *bench) (err error) {
	proxy := b.lab.Targets[2].Data.Addr()
	ways := []struct {
		to     [2]netip.AddrPort
		series *Series
		fds    [2]int
	}{
		{to: twice(netip.AddrPortFrom(lab.DVIPA, 80)), series: &r.Series.Baton},
		{to: twice(netip.AddrPortFrom(proxy, proxyPort)), series: &r.Series.Close},
		{to: twice(netip.AddrPortFrom(proxy, reusePort)), series: &r.Series.Reuse},
		{to: [2]netip.AddrPort{netip.AddrPortFrom(r.hosts[0].Data.Addr(), 81), netip.AddrPortFrom(r.hosts[1].Data.Addr(), 81)},
			series: &r.Series.Direct},
	}
	for i := range ways {
		w := &ways[i]
		if w.fds[0], err = connect(w.to[0]); err != nil {
			return err
		}
		defer unix.Close(w.fds[0])
		if w.fds[1] = w.fds[0]; w.to[0] != w.to[1] {
			if w.fds[1], err = connect(w.to[1]); err != nil {
				return err
			}
			defer unix.Close(w.fds[1])
		}
	}
	for i := range b.warmup/4 + r.Rounds {
		for _, w := range ways {
			time.Sleep(settles)
			took, err := r.request(w.fds[i%2], i%2)
			if err != nil {
				return fmt.Errorf("round %d to %v: %w", i, w.to[i%2], err)
			}
			if i >= b.warmup/4 {
				*w.series = append(*w.series, took)
			}
		}
		if err := cameBack(ctx, b, i+1); err != nil {
			return err
		}
	}
	return nil
}

func twice(a netip.AddrPort) [2]netip.AddrPort { return [2]netip.AddrPort{a, a} }

// request asks for the file on an open connection, and makes sure that the right server has answered.
func (r *rerouted) request(fd, server int) (time.Duration, error) {
	c := client{request: r.pages[server], body: r.body, buf: r.buf}
	began := time.Now()
	n, err := c.ask(fd)
	took := time.Since(began)
	if err != nil {
		return 0, err
	}
	head, body, _ := bytes.Cut(r.buf[:n], headEnd)
	served := "\r\nx-target: " + r.hosts[server].Name + "\r\n" // HAProxy writes names in lower case
	if !strings.Contains(strings.ToLower(string(head))+"\r\n", served) || !bytes.Equal(body, r.body) {
		return 0, fmt.Errorf("unexpected response: %.300q", head)
	}
	return took, nil
}

// cameBack waits until the routing host has taken so many connections back.
func cameBack(ctx context.Context, b *bench, n int) error {
	return lab.Until(ctx, "the connection is back", func() error {
		counters, err := b.baton.Admin.Counters(ctx)
		if err != nil {
			return err
		}
		for _, c := range counters {
			if c.Group == "router" && c.Name == "taken_back" && c.Value >= uint64(n) {
				return nil
			}
		}
		return fmt.Errorf("not %d times yet", n)
	})
}

var wentBack = regexp.MustCompile(`msg="connection went back" .*took=(\S+)`)

// readBack reads from the agents' logs how long the hand-backs took.
func (r *rerouted) readBack(b *bench) error {
	for _, p := range b.baton.Agents[:2] {
		for _, m := range wentBack.FindAllStringSubmatch(p.Log(), -1) {
			d, err := time.ParseDuration(m[1])
			if err != nil {
				return err
			}
			r.Series.Back = append(r.Series.Back, d)
		}
	}
	if len(r.Series.Back) < r.Rounds {
		return fmt.Errorf("the agents tell of %d hand-backs in %d rounds", len(r.Series.Back), r.Rounds)
	}
	return nil
}

func (r *rerouted) print(out io.Writer) {
	printRows(out, []row{
		{"request re-routed by Baton", r.Series.Baton},
		{"by HAProxy, http-server-close", r.Series.Close},
		{"by HAProxy, http-reuse always", r.Series.Reuse},
		{"request directly", r.Series.Direct},
		{"close -> taken back", r.Series.Back},
	})
}
