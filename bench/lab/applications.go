package lab

import (
	"context"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"baton/control/app/examples"
)

// This file starts the applications of package examples, which have control sockets.

// Authenticate starts the routing application for POP3 under a name, for users as "ada:secret=mail", and waits until it is
// registered.
func (h *Host) Authenticate(ctx context.Context, name string, users ...string) (*Process, error) {
	return h.router(ctx, "pop3_router.py", name, users)
}

// AuthenticateBy is Authenticate by the example in Go or in C, the program at path.
func (h *Host) AuthenticateBy(ctx context.Context, path, name string, users ...string) (*Process, error) {
	p, err := h.Start(name, append([]string{path, h.ControlSocket(), service(), name}, users...)...)
	if err != nil {
		return nil, err
	}
	return p, p.Says(ctx, "registered")
}

// Mailboxes starts the target application for POP3 on port 80, for words about users as "eve=locked". It registers once the
// host's daemon is there.
func (h *Host) Mailboxes(job string, words ...string) (*Process, error) {
	return h.example("pop3d", "pop3_target.py", append([]string{job, "80", h.Name}, words...)...)
}

// AuthenticateOverUDP is Authenticate by a control socket over UDP.
func (h *Host) AuthenticateOverUDP(ctx context.Context, name string, users ...string) (*Process, error) {
	where, err := h.ControlUDP()
	if err != nil {
		return nil, err
	}
	p, err := h.exampleAt(where, name, "pop3_router.py", append([]string{service(), name}, users...)...)
	if err != nil {
		return nil, err
	}
	return p, p.Says(ctx, "registered ")
}

// MailboxesOverUDP is Mailboxes by a control socket over UDP.
func (h *Host) MailboxesOverUDP(job string, words ...string) (*Process, error) {
	where, err := h.ControlUDP()
	if err != nil {
		return nil, err
	}
	return h.exampleAt(where, "pop3d", "pop3_target.py", append([]string{job, "80", h.Name}, words...)...)
}

// MailboxesInC is Mailboxes by the example of the library for C, the program at path.
func (h *Host) MailboxesInC(path, job string) (*Process, error) {
	return h.Start("c-target", path, h.ControlSocket(), job, "80", h.Name)
}

// MailboxesInGo is Mailboxes by the example in Go, the program at path, with the users whose mailbox is locked.
func (h *Host) MailboxesInGo(path, job string, locked ...string) (*Process, error) {
	return h.Start("go-target", append([]string{path, h.ControlSocket(), job, "80", h.Name}, locked...)...)
}

// PythonRouter starts the routing application for HTTP under a name, for rules as "a.example=web-a", and waits until it is
// registered.
func (h *Host) PythonRouter(ctx context.Context, name string, rules ...string) (*Process, error) {
	return h.router(ctx, "router.py", name, rules)
}

// QuizRouter starts the quiz as a routing application, and waits until it is registered.
func (h *Host) QuizRouter(ctx context.Context) (*Process, error) {
	return h.router(ctx, "quiz.py", h.Name, nil)
}

// Quiz starts it as a target application on port 80.
func (h *Host) Quiz(job string) (*Process, error) {
	return h.example("quiz", "quiz.py", job, "80", h.Name)
}

func (h *Host) router(ctx context.Context, script, name string, args []string) (*Process, error) {
	p, err := h.example(name, script, append([]string{service(), name}, args...)...)
	if err != nil {
		return nil, err
	}
	return p, p.Says(ctx, "registered ")
}

// service is what routing applications register for.
func service() string { return netip.AddrPortFrom(DVIPA, 80).String() }

// example starts one of the applications in Python with the path of the host's control socket and arguments.
func (h *Host) example(name, script string, args ...string) (*Process, error) {
	return h.exampleAt(h.ControlSocket(), name, script, args...)
}

// exampleAt starts one with a control socket.
func (h *Host) exampleAt(where, name, script string, args ...string) (*Process, error) {
	dir := h.Path("examples")
	if err := unpack(examples.Python, dir); err != nil {
		return nil, err
	}
	return h.Start(name, append([]string{"/usr/bin/python3", filepath.Join(dir, script), where}, args...)...)
}

// unpack writes the files of a file system into a directory.
func unpack(files fs.FS, dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	return os.CopyFS(dir, files)
}
