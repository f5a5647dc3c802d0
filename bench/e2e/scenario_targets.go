package main

import (
	"baton/bench/lab"
)

// other returns the scenario of an unmodified server that is not nginx.
func other(name, doc string, start Server) Scenario {
	return Scenario{
		Name: name, Doc: doc, Shape: Shape{Server: start},
		Expect: Expect{Connections: 20, Transferred: 20},
		Run: func(e *Env) error {
			for range 10 {
				if err := e.curls([]fetched{{"a.example", "/x", "t1"}, {"www.b.example", "/y", "t2"}}); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

var targetScenarios = []Scenario{
	other("haproxy-as-target", "stock haproxy continues connections that it never accepted a SYN for",
		func(e *Env, h *lab.Host) error {
			_, err := h.Haproxy(e.Ctx, lab.ServerOptions{})
			return err
		}),
	other("go-as-target", "so does Go's net/http",
		func(_ *Env, h *lab.Host) error {
			l, err := h.Listen(":80")
			if err == nil {
				h.Go(l)
			}
			return err
		}),
	other("python-as-target", "so does Python's http.server",
		func(e *Env, h *lab.Host) error {
			_, err := h.Python(e.Ctx)
			return err
		}),
}
