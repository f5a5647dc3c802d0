package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"baton/bench/lab"
	"baton/control/xcf"
)

// recordSize is the size of the commit that goes back and forth, octets: the record of a connection with its request.
const recordSize = 200

// echoPort is where the stream of the measurement is, beside Baton's own.
const echoPort = 7601

// trips measures bare round trips of an XCF stream, from the routing host's namespace to a process in the target's.
type trips struct {
	server *xcf.Server
	probe  xcf.Probe
	target string
	end    context.CancelFunc
	ended  chan error
}

// startTrips opens the stream. The lab's certificates exist.
func startTrips(ctx context.Context, l *lab.Lab) (*trips, error) {
	target := l.Targets[0]
	at := netip.AddrPortFrom(l.Router.XCF.Addr(), echoPort)
	t := &trips{probe: xcf.NewProbe(), target: target.Name, ended: make(chan error, 1)}
	err := l.Router.Do(func() (err error) {
		t.server, err = xcf.Listen(at.String(), hostConfig(l.Certificates(), l.Router.Name), t.probe, silent)
		return err
	})
	if err != nil {
		return nil, err
	}
	serving, end := context.WithCancel(context.Background())
	t.end = end
	go func() { t.ended <- t.server.Serve(serving) }()
	self, err := os.Executable()
	if err == nil {
		_, err = target.Start("echo", self, "-echo", at.String(), "-echo-router", l.Router.Name, "-echo-host", target.Name,
			"-echo-certs", l.Certificates())
	}
	if err == nil {
		err = t.probe.Await(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, t.stop())
	}
	return t, nil
}

// one makes one round trip.
func (t *trips) one(ctx context.Context) (time.Duration, error) {
	return t.probe.RoundTrip(ctx, t.server, t.target, recordSize)
}

func (t *trips) stop() error {
	t.end()
	return <-t.ended
}

// echoOptions make this program the other end of the stream.
type echoOptions struct{ router, name, host, certs string }

func (o *echoOptions) register() {
	flag.StringVar(&o.router, "echo", "", "only send back what the stream at this address brings (internal)")
	flag.StringVar(&o.name, "echo-router", "", "name of the host there")
	flag.StringVar(&o.host, "echo-host", "", "own name")
	flag.StringVar(&o.certs, "echo-certs", "", "directory of the certificates")
}

func (o *echoOptions) run(ctx context.Context) error {
	routers := []xcf.Router{{Host: o.name, Address: o.router}}
	d, err := xcf.NewDialer(hostConfig(o.certs, o.host), routers, xcf.Echo{}, silent)
	if err != nil {
		return err
	}
	d.Run(ctx)
	return nil
}

var silent = slog.New(slog.DiscardHandler)

func hostConfig(certs, name string) xcf.Config {
	file := func(suffix string) string { return filepath.Join(certs, name+suffix) }
	files := xcf.Files{CA: filepath.Join(certs, "ca.pem"), Cert: file(".pem"), Key: file(".key")}
	return xcf.Config{Name: name, Files: files}
}
