package daemon

import (
	"context"
	"log/slog"

	"baton/control/admin"
	"baton/control/agent"
	"baton/control/appsock"
	"baton/control/config"
)

// TargetApps are the target applications of a host.
type TargetApps struct {
	Notes   *appsock.Notes   // between applications
	serving *appsock.Serving // nil: there is no control socket
	sockets appsock.Sockets
}

// OpenTargetApps reads who may register for the jobs whose applications are asked. Nothing is opened yet.
func OpenTargetApps(host string, c config.TargetApps, x config.TargetXCF, jobs []agent.Job, log *slog.Logger) (*TargetApps, error) {
	var routers []string
	for _, r := range x.Routers {
		routers = append(routers, r.Host)
	}
	notes := appsock.NewNotes(host, routers, log)
	if len(c.Allow) == 0 {
		return &TargetApps{Notes: notes}, nil
	}
	sockets, err := ControlSockets(config.Applications(c))
	return &TargetApps{notes, appsock.NewServing(host, jobs, notes, log), sockets}, err
}

// Agent is what the agent asks; nil if all applications are conventional.
func (a *TargetApps) Agent() agent.Applications {
	if a.serving == nil {
		return nil
	}
	return a.serving
}

// Run serves control sockets until ctx ends.
func (a *TargetApps) Run(ctx context.Context) error {
	if a.serving == nil {
		<-ctx.Done()
		return nil
	}
	return a.serving.Run(ctx, a.sockets)
}

// List lists the applications that are registered, for operators.
func (a *TargetApps) List(context.Context) ([]admin.Application, error) {
	if a.serving == nil {
		return []admin.Application{}, nil
	}
	return a.serving.Registered(), nil
}

// Counters are what operators see of control sockets.
func (a *TargetApps) Counters() []admin.Counter {
	if a.serving == nil {
		return nil
	}
	return a.serving.Counters()
}
