package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"baton/bench/judge"
	"baton/bench/lab"
	"baton/control/admin"
	"baton/fastpath/wire"
)

// twoLcores is the usual cluster with two poll loops. The port has one queue, so the first loop hands every other
// connection to the second.
func twoLcores() lab.Cluster {
	c := lab.TwoSites()
	c.Lcores = 2
	return c
}

// spread is how many connections make sure that each of two loops has some: all in one has a chance of 2^-39.
const spread = 40

var lcoreScenarios = []Scenario{
	{
		Name:   "two-lcores",
		Doc:    "two poll loops share a port: both accept, transfer and forward their connections",
		Shape:  Shape{Cluster: twoLcores()},
		Expect: Expect{Connections: spread, Transferred: spread, Retransmissions: true},
		Run:    func(e *Env) error { return e.twoLcores(false) },
	},
	{
		Name:   "two-queues",
		Doc:    "the same with a port of two queues, between which the kernel sorts by another hash: each loop hands over",
		Shape:  Shape{Cluster: twoQueues()},
		Expect: Expect{Connections: spread, Transferred: spread, Retransmissions: true},
		Run:    func(e *Env) error { return e.twoLcores(true) },
	},
	{
		Name:   "link-flap",
		Doc:    "the data port's link goes down and up: a download, an idle connection and a handshake under way go on",
		Shape:  Shape{Private: true},
		Expect: Expect{Connections: 3, Transferred: 3, Retransmissions: true},
		Run:    runLinkFlap,
	},
	{
		Name:   "key-rotation",
		Doc:    "the cookies' secret is rotated, and then the daemon restarted: handshakes answered before it complete after it",
		Shape:  Shape{Cluster: rotatingKeys(), Private: true},
		Expect: Expect{Connections: 5, Transferred: 5, Retransmissions: true},
		Run:    runKeyRotation,
	},
}

// rotatingKeys is the usual cluster with its secrets in a file.
func rotatingKeys() lab.Cluster {
	c := lab.TwoSites()
	c.KeyLead = 300 * time.Millisecond
	return c
}

// twoQueues is twoLcores with a port that has a queue for each.
func twoQueues() lab.Cluster {
	c := twoLcores()
	c.Device, c.Arguments = "net_af_packet", "qpairs=2"
	return c
}

// twoLcores makes connections until each of two loops has some. queues: each has a queue, too.
func (e *Env) twoLcores(queues bool) error {
	for i := range spread {
		f := sites[i%len(sites)]
		path := fmt.Sprintf("/%d", i)
		r, err := e.Fetch(lab.Request(f.host, path))
		if err == nil {
			err = want(r, f.target, f.host, path)
		}
		if err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
	}
	// Forwarding and the switch may follow the response; entries linger.
	return lab.Until(e.Ctx, "both lcores have done their part", func() error {
		var lcores []admin.Lcore
		if err := e.batonctl(e.Lab.Router, &lcores, "lcores"); err != nil {
			return err
		}
		return checkLcores(lcores, queues)
	})
}

// checkLcores expects that both loops did all that there is to do.
func checkLcores(lcores []admin.Lcore, queues bool) error {
	if len(lcores) != 2 {
		return fmt.Errorf("%d lcores, want 2", len(lcores))
	}
	for _, l := range lcores {
		if l.Accepted == 0 || l.Forwarded == 0 || l.Polls == 0 || l.GapMax <= 0 {
			return fmt.Errorf("an lcore did not take part: %+v", lcores)
		}
	}
	if n := lcores[0].Accepted + lcores[1].Accepted; n != spread {
		return fmt.Errorf("%d connections were accepted, want %d: %+v", n, spread, lcores)
	}
	if lcores[0].Passed == 0 || (lcores[1].Passed > 0) != queues {
		return fmt.Errorf("the lcores passed on %d and %d frames", lcores[0].Passed, lcores[1].Passed)
	}
	return nil
}

// flapBytes is enough for a download that has not ended when its reader pauses: more than all buffers on the way.
const flapBytes = 16 << 20

func runLinkFlap(e *Env) error {
	file, err := e.Lab.File(flapBytes)
	if err != nil {
		return err
	}
	download, err := e.Dial()
	if err != nil {
		return err
	}
	idle, err := e.Dial() // the handshake is done, its request will be sent while the link is down
	if err != nil {
		return err
	}
	rest, err := e.startDownload(download, file)
	if err != nil {
		return err
	}
	if err := e.link(false, 1); err != nil {
		return err
	}
	var all sync.WaitGroup
	errs := make([]error, 3)
	all.Go(func() { errs[0] = rest() })
	all.Go(func() { errs[1] = e.fetchOn(idle, sites[1], "/idle") })
	all.Go(func() { errs[2] = e.fetchNew(sites[0], "/new") })
	err = errors.Join(e.sleep(flapPause), e.link(true, 2))
	all.Wait()
	return errors.Join(err, errs[0], errs[1], errs[2])
}

// flapPause lets the clients send into the void: what they sent at first is lost for sure.
const flapPause = 500 * time.Millisecond

// link takes the data port's link up or down and waits until the daemon tells of so many changes.
func (e *Env) link(up bool, changes uint64) error {
	if err := e.Lab.SetLink(e.Lab.Router, up); err != nil {
		return err
	}
	return lab.Until(e.Ctx, fmt.Sprintf("the daemon knows of %d changes of the link", changes), func() error {
		var ports []admin.Port
		if err := e.batonctl(e.Lab.Router, &ports, "ports"); err != nil {
			return err
		}
		if len(ports) != 1 || ports[0].Up != up || ports[0].Changes != changes {
			return fmt.Errorf("ports: %+v", ports)
		}
		return nil
	})
}

// startDownload fetches the first part of a file. What it returns fetches the rest, and closes the connection.
func (e *Env) startDownload(c *lab.Conn, file *judge.Digest) (rest func() error, err error) {
	if _, err := c.Write(lab.Request("a.example", fmt.Sprintf("/static/data-%d", file.Octets))); err != nil {
		return nil, err
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return nil, err
	}
	got := sha256.New()
	if _, err := io.CopyN(got, r.Body, file.Octets/8); err != nil {
		return nil, err
	}
	if err := e.Settled(c.Local(), "t1"); err != nil {
		return nil, err
	}
	return func() error {
		_, err := io.Copy(got, r.Body)
		if err == nil && [sha256.Size]byte(got.Sum(nil)) != file.SHA256 {
			err = errors.New("the download is not the file")
		}
		return errors.Join(err, c.Close())
	}, nil
}

// fetchOn sends a request on a connection, and closes it after the response.
func (e *Env) fetchOn(c *lab.Conn, f fetched, path string) error {
	r, err := lab.RoundTrip(e.Ctx, c, lab.Request(f.host, path))
	if err == nil {
		e.note(c.Local(), r)
		err = want(r, f.target, f.host, path)
	}
	return errors.Join(err, c.Close())
}

func (e *Env) fetchNew(f fetched, path string) error {
	c, err := e.Dial()
	if err != nil {
		return err
	}
	return e.fetchOn(c, f, path)
}

func runKeyRotation(e *Env) (err error) {
	raw, err := e.Client.Raw(rawAddress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, raw.Close()) }()
	file, err := e.Lab.File(flapBytes)
	if err != nil {
		return err
	}
	before, err := e.forwarderState()
	if err != nil {
		return err
	}
	if err := e.underRotation(raw, file); err != nil {
		return err
	}
	half, err := e.begin(raw, 20002)
	if err != nil {
		return err
	}
	if err := e.restartWithKeys(); err != nil {
		return err
	}
	if err := e.complete(half, "/after-restart"); err != nil {
		return fmt.Errorf("after the restart: %w", err)
	}
	after, err := e.forwarderState()
	if err == nil && (before.forged != 0 || after.forged != 0) {
		err = fmt.Errorf("%d, and after the restart %d segments were taken for forged", before.forged, after.forged)
	}
	return err
}

// underRotation rotates the secrets while a download runs, a connection is idle, and a handshake waits for its last ACK.
func (e *Env) underRotation(raw *lab.RawHost, file *judge.Digest) error {
	half, err := e.begin(raw, 20001) // first: its client repeats nothing, and a download could crowd out what it gets
	if err != nil {
		return err
	}
	idle, err := e.Dial()
	if err != nil {
		return err
	}
	download, err := e.Dial()
	if err != nil {
		return err
	}
	rest, err := e.startDownload(download, file)
	if err != nil {
		return err
	}
	if err := e.rotateKeys(); err != nil {
		return err
	}
	return errors.Join(e.complete(half, "/half"), e.fetchOn(idle, sites[1], "/idle"), e.fetchNew(sites[0], "/new"), rest())
}

// rotateKeys waits until the new secret is in use. Another rotation has to wait.
func (e *Env) rotateKeys() error {
	var keys []admin.Key
	if err := e.batonctl(e.Lab.Router, &keys, "keys", "rotate"); err != nil {
		return err
	}
	if len(keys) != 2 || keys[0].State != "current" || keys[1].State != "next" || keys[0].Fingerprint == keys[1].Fingerprint {
		return fmt.Errorf("after the rotation the keys are %+v", keys)
	}
	_, err := e.Baton.Admin.Rotate(e.Ctx)
	if err == nil {
		return errors.New("a second rotation at once was accepted")
	}
	if !strings.Contains(err.Error(), "too soon") {
		return fmt.Errorf("second rotation: %w", err)
	}
	return lab.Until(e.Ctx, "the new secret is in use", func() error {
		if err := e.batonctl(e.Lab.Router, &keys, "keys"); err != nil {
			return err
		}
		if len(keys) != 2 || keys[0].State != "retiring" || keys[1].State != "current" {
			return fmt.Errorf("the keys are %+v", keys)
		}
		return nil
	})
}

// restartWithKeys restarts the routing host's daemon, whose secrets must be the same afterwards.
func (e *Env) restartWithKeys() error {
	before, err := e.Baton.Admin.Keys(e.Ctx)
	if err != nil {
		return err
	}
	if err := e.restartRouter(); err != nil {
		return err
	}
	after, err := e.Baton.Admin.Keys(e.Ctx)
	if err == nil && !slices.EqualFunc(before, after, func(a, b admin.Key) bool { return a.Fingerprint == b.Fingerprint }) {
		err = fmt.Errorf("the keys were %+v and are %+v after a restart", before, after)
	}
	return err
}

// begin sends a SYN and takes the answer.
func (e *Env) begin(raw *lab.RawHost, port uint16) (*lab.RawConn, error) {
	offer := wire.Options{MSS: 1460, SACKPermitted: true, HasTimestamps: true, Scale: 7, HasScale: true}
	c, err := raw.Conn(e.Ctx, port, service, offer)
	if err != nil {
		return nil, err
	}
	return c, c.Begin(e.Ctx)
}

// complete sends the last ACK of a handshake with a request, and expects t1's answer.
func (e *Env) complete(c *lab.RawConn, path string) error {
	defer c.Close()
	request := lab.Request("a.example", path)
	if err := c.Send(wire.ACK|wire.PSH, request); err != nil {
		return err
	}
	line := fmt.Sprintf("t1 GET a.example %s\n", path)
	got, err := c.ReadUntil(e.Ctx, func(b []byte) bool { return strings.HasSuffix(string(b), line) })
	if err != nil {
		return fmt.Errorf("received %.100q: %w", got, err)
	}
	e.Record(c.Tuple.Client, judge.Stream{Sent: judge.DigestOf(request), Received: judge.DigestOf(got)})
	return nil
}
