package appsock

import (
	"cmp"
	"errors"
	"os"
	"slices"

	"baton/control/agent"
	"baton/control/app"
	"baton/control/transfer"
)

// give gives an application's connection away, and tells it what came of that.
func (s *Serving) give(p *Peer, m app.Message, files []*os.File) {
	i := slices.Index(m.Files, app.FileConnection)
	if i < 0 {
		closeAll(files)
		p.Error(m.Seq, app.CodeMalformed, `give has no file "connection"`)
		return
	}
	socket := files[i]
	closeAll(slices.Delete(files, i, i+1))
	jobs, name := s.jobsOf(p)
	s.to.Give(agent.Gift{Socket: socket, Jobs: jobs, Job: m.Job, Host: m.Host, State: m.State, From: name,
		Settled: func(host string, err error) { p.Send(givenAnswer(m.Seq, host, err)) }})
}

// jobsOf are the jobs that an application is registered for, and what it calls itself, at the first of them.
func (s *Serving) jobsOf(p *Peer) (jobs []agent.Job, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, job := range s.jobs {
		for _, m := range s.members[job] {
			if m.peer == p {
				jobs, name = append(jobs, job), cmp.Or(name, m.name)
			}
		}
	}
	return jobs, name
}

// givenAnswer tells an application what became of its connection.
func givenAnswer(number uint64, host string, err error) app.Message {
	var p *agent.Problem
	switch {
	case err == nil:
		return app.Message{Type: app.TypeGiven, Seq: number, Host: host}
	case !errors.As(err, &p):
		return app.Message{Type: app.TypeEnded, Seq: number, Detail: err.Error()}
	}
	m := app.Message{Type: app.TypeRejected, Seq: number, By: "router", Code: app.CodeStack, Detail: p.Detail}
	if host == "" {
		m.By = "stack"
	}
	switch p.Reason {
	case transfer.ReasonHops:
		m.Code = app.CodeHops
	case transfer.ReasonUnknownJob:
		m.Code = app.CodeUnknownJob
	case transfer.ReasonNotListening:
		m.Code = app.CodeNoTarget
	case transfer.ReasonApplication:
		m.Code = app.CodeNotAllowed
	default:
	}
	return m
}
