// Command go-target is a target application in Go: a POP3 server that leaves greeting and authentication to a routing
// application. It is offered each connection with the user as its state, and goes on after PASS. It rejects the users whose
// mailbox it is told is locked.
//
// Usage: go-target SOCKET JOB PORT NAME [LOCKED]... SOCKET is the control socket of the host's daemon.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"baton/control/app"
)

func main() {
	if len(os.Args) < 5 {
		fmt.Fprintln(os.Stderr, "usage: go-target SOCKET JOB PORT NAME [LOCKED]...")
		os.Exit(2)
	}
	fmt.Fprintln(os.Stderr, run(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5:]))
	os.Exit(1)
}

// run serves until the control socket ends, and returns why.
func run(path, job, port, name string, locked []string) error {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // Go's default; connections cannot be handed over to such a listener
	inner, err := config.Listen(context.Background(), "tcp4", ":"+port)
	if err != nil {
		return err
	}
	l, err := listen(path, job, inner, func(o app.Offer) error {
		if user := userOf(o); slices.Contains(locked, user) {
			return fmt.Errorf("the mailbox of %s is locked", user)
		}
		return nil
	})
	if err != nil {
		return err
	}
	fmt.Println("registered")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go serve(c.(*app.Conn), name)
	}
}

// listen registers once the daemon is there, which may start after its applications.
func listen(path, job string, inner net.Listener, decide func(app.Offer) error) (*app.Listener, error) {
	for {
		l, err := app.Listen(path, app.Registration{Job: job, Name: "go-target"}, inner, decide)
		if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ECONNREFUSED) {
			return l, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// userOf reads the user in the state; "nobody" without any.
func userOf(o app.Offer) string {
	state := struct{ User string }{"nobody"}
	if json.Unmarshal(o.State, &state) != nil {
		return "nobody"
	}
	return state.User
}

// serve goes on where the routing application has left off.
func serve(c *app.Conn, name string) {
	defer c.Close()
	fmt.Println("serves", c.Offer.Client, "for", userOf(c.Offer), "from", c.Offer.From.Name)
	say := func(line string) bool {
		_, err := fmt.Fprintf(c, "%s\r\n", line)
		return err == nil
	}
	going := say(fmt.Sprintf("+OK %s has the mailbox of %s", name, userOf(c.Offer)))
	for lines := bufio.NewScanner(c); going && lines.Scan(); {
		switch strings.ToUpper(lines.Text()) {
		case "STAT":
			going = say("+OK 0 0")
		case "QUIT":
			say("+OK bye")
			return
		default:
			going = say("-ERR what?")
		}
	}
}
