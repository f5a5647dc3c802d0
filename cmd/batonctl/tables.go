package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"baton/control/admin"
)

var errUnhealthy = errors.New("the host is not set up as it should be (see FAIL above)")

func crtCommand(o *options) *cobra.Command {
	var q admin.CRTQuery
	get := func(c *admin.Client, ctx context.Context) (admin.CRTPage, error) { return c.CRT(ctx, q) }
	cmd := ask(o, "crt", "List the connection routing table", get, writeCRT)
	f := cmd.Flags()
	f.StringVar(&q.Client, "client", "", "only flows of this client (address or address:port)")
	f.StringVar(&q.Service, "service", "", "only flows to this DVIPA (address or address:port)")
	f.StringVar(&q.Owner, "owner", "", `only flows of this owner ("router" or a target's name)`)
	f.IntVar(&q.Offset, "offset", 0, "skip this many flows")
	f.IntVar(&q.Limit, "limit", admin.DefaultPage, fmt.Sprintf("show at most this many flows (1 to %d)", admin.MaxPage))
	return cmd
}

func writeCRT(w io.Writer, p admin.CRTPage) {
	fmt.Fprintln(w, "CLIENT\tSERVICE\tOWNER\tSTATE\tIDLE")
	for _, e := range p.Entries {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", e.Client, e.Service, e.Owner, e.State, seconds(e.Idle))
	}
	fmt.Fprintf(w, "%d of %d matching flows from number %d; %d in the table, room for %d\n",
		len(p.Entries), p.Matching, p.Offset, p.Total, p.Capacity)
}

func targetsCommand(o *options) *cobra.Command {
	return ask(o, "targets", "List who listens where (DPT)", (*admin.Client).Targets, writeTargets)
}

func writeTargets(w io.Writer, rows []admin.Target) {
	fmt.Fprintln(w, "HOST\tJOB\tSERVICE\tREADY\tCONNECTED\tDRAINING\tADDRESS\tTUNNEL\tMAC\tWINDOW\tRTT\tPENDING\tACTIVE\tREASON")
	for _, t := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%d\t%d\t%s\n", t.Host, dash(t.Job), dash(t.Service),
			yes(t.Ready), yes(t.Connected), yes(t.Draining), t.Address, dash(t.Tunnel), dash(t.MAC), t.Window,
			seconds(t.RTT), t.Pending, t.Active, t.Reason)
	}
}

func targetCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "target", Short: "Take a target out of service, and back"}
	cmd.AddCommand(
		drainCommand(o, "drain NAME", "Give a target no new connections; those that it has stay", true),
		drainCommand(o, "undrain NAME", "Give a target new connections again", false))
	return cmd
}

func drainCommand(o *options, use, short string, drain bool) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := o.client().Drain(cmd.Context(), args[0], drain)
			if err != nil {
				return err
			}
			return o.show(cmd.OutOrStdout(), d, func(w io.Writer) {
				fmt.Fprintf(w, "target\t%s\ndraining\t%s\n", d.Target, yes(d.Draining))
			})
		},
	}
}

func servicesCommand(o *options) *cobra.Command {
	return ask(o, "services", "List services and who gets their connections", (*admin.Client).Services, writeServices)
}

func writeServices(w io.Writer, rows []admin.Service) {
	fmt.Fprintln(w, "SERVICE\tDISTRIBUTE\tJOB\tTARGET\tREADY\tWEIGHT\tCONNECTIONS\tREASON")
	for _, s := range rows {
		if s.Target == "" {
			fmt.Fprintf(w, "%s\t%s\t%s\t-\t-\t-\t-\t\n", s.Service, s.Distribute, dash(s.Job))
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", s.Service, s.Distribute, s.Job, s.Target, yes(s.Ready),
			s.Weight, s.Connections, s.Reason)
	}
}

func transfersCommand(o *options) *cobra.Command {
	return ask(o, "transfers", "List recent transfers, newest first", (*admin.Client).Transfers, writeTransfers)
}

func writeTransfers(w io.Writer, rows []admin.Transfer) {
	fmt.Fprintln(w, "TIME\tCLIENT\tSERVICE\tJOB\tTARGET\tOUTCOME\tBYTES\tHELD\t"+
		"FROZEN\tACCEPTED\tCONFIRMED\tSWITCHED\tTOTAL\tREASON")
	for _, t := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\t%s\n", t.Time.Format(time.TimeOnly), t.Client,
			t.Service, t.Job, dash(t.Target), t.Outcome, t.Bytes, t.Held, seconds(t.Phases["frozen"]),
			seconds(t.Phases["accepted"]), seconds(t.Phases["confirmed"]), seconds(t.Phases["switched"]),
			seconds(t.Total), t.Reason)
	}
}

func countersCommand(o *options) *cobra.Command {
	return ask(o, "counters", "List all counters", (*admin.Client).Counters, writeCounters)
}

func writeCounters(w io.Writer, rows []admin.Counter) {
	fmt.Fprintln(w, "GROUP\tNAME\tVALUE")
	for _, c := range rows {
		fmt.Fprintf(w, "%s\t%s\t%d\n", c.Group, c.Name, c.Value)
	}
}

func portsCommand(o *options) *cobra.Command {
	return ask(o, "ports", "List data ports with their driver and statistics", (*admin.Client).Ports, writePorts)
}

func writePorts(w io.Writer, rows []admin.Port) {
	fmt.Fprintln(w, "PORT\tDRIVER\tMAC\tADDRESS\tUP\tCHANGES\tRX PACKETS\tTX PACKETS\tRX BYTES\tTX BYTES\t"+
		"MISSED\tRX ERRORS\tTX ERRORS\tNO BUFFER")
	for _, p := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", p.Name, p.Driver, p.MAC, p.Address,
			yes(p.Up), p.Changes, p.RxPackets, p.TxPackets, p.RxBytes, p.TxBytes,
			p.Stats["rx_missed"], p.Stats["rx_errors"], p.Stats["tx_errors"], p.Stats["rx_no_buffer"])
	}
}

func lcoresCommand(o *options) *cobra.Command {
	return ask(o, "lcores", "List the poll loops: what they did, and how long packets may have waited for them",
		(*admin.Client).Lcores, writeLcores)
}

func writeLcores(w io.Writer, rows []admin.Lcore) {
	fmt.Fprintln(w, "LCORE\tBUSY\tGAP\tLONGEST GAP\tPOLLS\tENTRIES\tFLOWS\tACCEPTED\tFORWARDED\tPASSED")
	for _, l := range rows {
		fmt.Fprintf(w, "%d\t%.1f%%\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\n", l.Index, 100*l.Share, seconds(l.Gap), seconds(l.GapMax),
			l.Polls, l.Entries, l.Flows, l.Accepted, l.Forwarded, l.Passed)
	}
}

// keysCommand lists the secrets of SYN cookies; its sub-command adds one.
func keysCommand(o *options) *cobra.Command {
	list := ask(o, "keys", "List the secrets of SYN cookies by their fingerprints", (*admin.Client).Keys, writeKeys)
	list.AddCommand(ask(o, "rotate", "Let a new secret follow; handshakes under way complete", (*admin.Client).Rotate, writeKeys))
	return list
}

func writeKeys(w io.Writer, rows []admin.Key) {
	fmt.Fprintln(w, "FINGERPRINT\tSTATE\tFROM")
	for _, k := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\n", k.Fingerprint, k.State, k.From.Format(time.RFC3339))
	}
}

func flowsCommand(o *options) *cobra.Command {
	return ask(o, "flows", "List the connections that this target host has taken", (*admin.Client).Flows, writeFlows)
}

func writeFlows(w io.Writer, rows []admin.Flow) {
	fmt.Fprintln(w, "CLIENT\tSERVICE\tJOB\tSTATE\tROUTER\tSINCE")
	for _, f := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", f.Client, f.Service, f.Job, f.State, f.Router,
			f.Since.Format(time.RFC3339))
	}
}

func applicationsCommand(o *options) *cobra.Command {
	return ask(o, "applications", "List the applications that are registered at the control socket",
		(*admin.Client).Applications, writeApplications)
}

func writeApplications(w io.Writer, rows []admin.Application) {
	fmt.Fprintln(w, "NAME\tROLE\tJOB\tSERVICE\tOPEN\tTAKEN\tSINCE")
	for _, a := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\n", a.Name, a.Role, dash(a.Job), a.Service, a.Open, a.Taken,
			a.Since.Format(time.RFC3339))
	}
}

// doctorCommand prints every finding and ends with an error when one of them is bad, so that scripts can ask.
func doctorCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Let the daemon check its host", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings, err := o.client().Doctor(cmd.Context())
			if err != nil {
				return err
			}
			err = o.show(cmd.OutOrStdout(), findings, func(w io.Writer) { writeFindings(w, findings) })
			if err != nil {
				return err
			}
			return verdict(findings)
		},
	}
}

func writeFindings(w io.Writer, findings []admin.Finding) {
	for _, f := range findings {
		word := "FAIL"
		if f.OK {
			word = "ok"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", word, f.Check, f.Detail)
	}
}

func verdict(findings []admin.Finding) error {
	for _, f := range findings {
		if !f.OK {
			return errUnhealthy
		}
	}
	return nil
}

func versionCommand(o *options) *cobra.Command {
	return ask(o, "version", "Say what daemon runs", (*admin.Client).Version, func(w io.Writer, v admin.Version) {
		fmt.Fprintf(w, "%s %s (%s) on %s, pid %d, since %s\n", v.Program, v.Version, v.Go, v.Host, v.PID,
			v.Started.Format(time.RFC3339))
	})
}

// seconds prints a duration with at most microsecond resolution, and "-" for one that was not measured.
func seconds(s float64) string {
	if s == 0 {
		return "-"
	}
	return time.Duration(s * float64(time.Second)).Round(time.Microsecond).String()
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
