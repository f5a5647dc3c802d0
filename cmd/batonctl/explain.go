package main

import (
	"fmt"
	"io"
	"net/netip"

	"github.com/spf13/cobra"

	"baton/control/config"
	"baton/control/inspect"
	"baton/control/tcp"
)

// explanation is what a routing host with some configuration would do with a client.
type explanation struct {
	Service  string   `json:"service"`
	Protocol string   `json:"protocol"`
	Verdict  string   `json:"verdict"`
	Job      string   `json:"job,omitempty"`
	Hosts    []string `json:"hosts,omitempty"` // of the job, in the order in which they are tried
	Rule     string   `json:"rule,omitempty"`  // file:line of the rule, or the default, that decides
	Cause    string   `json:"cause,omitempty"`
	Detail   string   `json:"detail,omitempty"`
	Told     string   `json:"told,omitempty"` // what the client is told
	Consumed int      `json:"consumed"`       // octets of the input that the target does not get to read
}

func explainCommand(o *options) *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "explain ADDRESS:PORT",
		Short: "Tell what a configuration does with a client that says what comes on standard input",
		Example: "  printf 'GET / HTTP/1.1\\r\\nHost: a.example\\r\\n\\r\\n' | " +
			"batonctl explain -c /etc/baton/baton.yaml 10.77.0.10:80",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			service, err := netip.ParseAddrPort(args[0])
			if err != nil {
				return fmt.Errorf("%q: want a service as in 10.77.0.10:80", args[0])
			}
			input, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 1<<20))
			if err != nil {
				return fmt.Errorf("read input: %w", err)
			}
			e, err := explain(file, service, input)
			if err != nil {
				return err
			}
			return o.show(cmd.OutOrStdout(), e, e.table)
		},
	}
	c.Flags().StringVarP(&file, "config", "c", "/etc/baton/baton.yaml", "configuration of a routing host")
	return c
}

// explain lets the service's routing application read the input.
func explain(file string, service netip.AddrPort, input []byte) (*explanation, error) {
	cfg, err := config.LoadRouter(file)
	if err != nil {
		return nil, err
	}
	port, err := cfg.Service(service)
	if err != nil {
		return nil, err
	}
	if port.Conventional() {
		return nil, fmt.Errorf("%s is distributed by %s: whatever the client sends, it is for a host of %s (batonctl services)",
			service, port.Distribute, port.Job)
	}
	app, err := cfg.NewApplication(port)
	if err != nil {
		return nil, fmt.Errorf("routing application of %s: %w", service, err)
	}
	d, told, consumed := converse(app.Session(tcp.Readable(port.Window, port.WindowScale)), input)
	e := &explanation{Service: service.String(), Protocol: port.Protocol, Verdict: d.Verdict.String(), Told: told,
		Consumed: consumed}
	switch d.Verdict {
	case inspect.Route:
		e.Job, e.Hosts, e.Rule = d.Job, cfg.Jobs[d.Job].Hosts, cfg.RuleAt(service, d.Rule)
	case inspect.Refuse:
		e.Cause, e.Detail = d.Cause.String(), d.Detail
	case inspect.NeedMore, inspect.End, inspect.Ask:
	}
	return e, nil
}

// converse shows a session all of the input, as the router would if it came at once. Passwords are taken for right.
func converse(s inspect.Session, input []byte) (last inspect.Decision, told string, consumed int) {
	for {
		last = s.Inspect(input[consumed:])
		if asker, ok := s.(inspect.Asker); ok && last.Verdict == inspect.Ask {
			asker.Answer(inspect.Right) // nobody is asked: what matters here comes after
			last = s.Inspect(input[consumed:])
		}
		told += string(last.Reply)
		consumed += last.Consumed
		if last.Verdict != inspect.NeedMore || last.Consumed == 0 || consumed == len(input) {
			return last, told, consumed
		}
	}
}

func (e *explanation) table(w io.Writer) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%s\t%s\n", name, value)
		}
	}
	line("SERVICE", e.Service+" ("+e.Protocol+")")
	line("VERDICT", e.Verdict)
	line("JOB", e.Job)
	if len(e.Hosts) > 0 {
		line("HOSTS", fmt.Sprint(e.Hosts))
	}
	line("RULE", e.Rule)
	line("CAUSE", e.Cause)
	line("DETAIL", e.Detail)
	if e.Told != "" {
		line("TOLD", fmt.Sprintf("%q", e.Told))
	}
	line("CONSUMED", fmt.Sprint(e.Consumed))
}
