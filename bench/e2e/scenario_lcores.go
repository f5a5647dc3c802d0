package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"baton/bench/judge"
	"baton/bench/lab"
	"baton/control/admin"
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
		Run:    runTwoLcores,
	},
	{
		Name:   "link-flap",
		Doc:    "the data port's link goes down and up: a download, an idle connection and a handshake under way go on",
		Shape:  Shape{Private: true},
		Expect: Expect{Connections: 3, Transferred: 3, Retransmissions: true},
		Run:    runLinkFlap,
	},
}

func runTwoLcores(e *Env) error {
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
		return checkLcores(lcores)
	})
}

// checkLcores expects that both loops did all that there is to do.
func checkLcores(lcores []admin.Lcore) error {
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
	if lcores[0].Passed == 0 || lcores[1].Passed != 0 {
		return fmt.Errorf("the first lcore receives for both, but they passed on %d and %d", lcores[0].Passed, lcores[1].Passed)
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
