// Command go-router is a routing application in Go: it authenticates POP3 users, and gives whoever has the mailbox the
// authenticated connection: the user is the application state. The client sees one server; the mailbox's never asks for the
// password.
//
// Usage: go-router SOCKET SERVICE NAME USER:PASSWORD=JOB... SOCKET is the control socket of the host's daemon, SERVICE a
// DVIPA and port as in 10.77.0.10:110.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"baton/control/app"
)

func main() {
	if len(os.Args) < 5 {
		fmt.Fprintln(os.Stderr, "usage: go-router SOCKET SERVICE NAME USER:PASSWORD=JOB...")
		os.Exit(2)
	}
	accounts, err := parse(os.Args[4:])
	if err == nil {
		err = run(os.Args[1], app.Registration{Service: os.Args[2], Name: os.Args[3]}, accounts)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// account is whom a user is to be, and who has the mailbox.
type account struct{ password, job string }

func parse(arguments []string) (map[string]account, error) {
	accounts := make(map[string]account)
	for _, a := range arguments {
		login, job, _ := strings.Cut(a, "=")
		user, password, _ := strings.Cut(login, ":")
		if user == "" || password == "" || job == "" {
			return nil, fmt.Errorf("argument %q: want USER:PASSWORD=JOB", a)
		}
		accounts[user] = account{password, job}
	}
	return accounts, nil
}

// run serves until the control socket ends, and returns why.
func run(path string, r app.Registration, accounts map[string]account) error {
	router, err := app.NewRouter(path, r)
	if err != nil {
		return err
	}
	fmt.Println("registered")
	for {
		c, err := router.Accept()
		if err != nil {
			return err
		}
		go serve(c, accounts)
	}
}

// serve talks with a client until somebody else has it, or it leaves. A mailbox that rejects it is an error for the client,
// who may log in as somebody else.
func serve(c *app.Client, accounts map[string]account) {
	defer c.Close()
	answer := "+OK POP3 ready"
	for {
		if _, err := fmt.Fprintf(c, "%s\r\n", answer); err != nil {
			return
		}
		user, err := authenticate(c, accounts)
		if err != nil {
			return
		}
		job := accounts[user].job
		err = transfer(c, job, user)
		var rejected *app.RejectedError
		if !errors.As(err, &rejected) {
			fmt.Println("transfer", user, job, outcome(err))
			return
		}
		fmt.Println("transfer", user, job, "rejected")
		answer = "-ERR " + err.Error()
	}
}

// transfer hands the connection over once the client has acknowledged every answer, with the user as its state.
func transfer(c *app.Client, job, user string) error {
	state, err := json.Marshal(struct {
		User string `json:"user"`
	}{user})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return c.Transfer(ctx, app.Wish{Job: job, State: state, Quiescent: true})
}

func outcome(err error) string {
	if err != nil {
		return err.Error()
	}
	return "accepted"
}

// authenticate speaks POP3 (RFC 1939) until the client has said who it is, and returns the user. The last command is not
// answered: who has the mailbox will.
func authenticate(c *app.Client, accounts map[string]account) (string, error) {
	var user string
	for {
		line, err := readLine(c)
		if err != nil {
			return "", err
		}
		verb, argument, _ := strings.Cut(line, " ")
		answer := "-ERR who are you?"
		switch strings.ToUpper(verb) {
		case "CAPA":
			answer = "+OK\r\nUSER\r\n."
		case "USER":
			user, answer = argument, "+OK"
		case "PASS":
			if known, ok := accounts[user]; ok && argument == known.password {
				return user, nil
			}
			answer = "-ERR [AUTH] wrong"
		case "QUIT":
			_, err := io.WriteString(c, "+OK bye\r\n")
			return "", errors.Join(err, io.EOF)
		}
		if _, err := fmt.Fprintf(c, "%s\r\n", answer); err != nil {
			return "", err
		}
	}
}

// longest is a command of POP3, in octets (RFC 2449, section 4).
const longest = 255

// readLine reads no more than a line: what the client has sent after it stays for who has the mailbox.
func readLine(c *app.Client) (string, error) {
	var seen [longest]byte
	for have := 0; ; {
		n, err := c.Peek(seen[:])
		if err != nil {
			return "", err
		}
		if end := bytes.IndexByte(seen[:n], '\n'); end >= 0 {
			_, err := io.ReadFull(c, seen[:end+1])
			return strings.TrimRight(string(seen[:end]), "\r"), err
		}
		if n == len(seen) {
			return "", fmt.Errorf("a command of more than %d octets", longest)
		}
		if n == have { // Peek does not wait for more than it has shown
			time.Sleep(time.Millisecond)
		}
		have = n
	}
}
