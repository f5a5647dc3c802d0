// Batonctl is the operator's tool: it asks the daemon of this host (baton or baton-target) over its admin socket, lists
// network devices, and makes certificates. All that it changes in a running daemon is which targets drain. It needs neither
// DPDK nor cgo.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"baton/control/admin"
)

// Sockets that are tried when --socket is not given, in this order.
var defaultSockets = []string{"/run/baton/baton.sock", "/run/baton/target.sock"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "batonctl:", err)
		stop()
		os.Exit(1)
	}
}

// options are the flags that every command has.
type options struct {
	socket string
	json   bool
}

func newCommand() *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:           "batonctl",
		Short:         "Look into the Baton daemon of this host",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.PersistentFlags().StringVar(&o.socket, "socket", "",
		"admin socket of the daemon (default: the first of "+defaultSockets[0]+" and "+defaultSockets[1]+" that is there)")
	root.PersistentFlags().BoolVar(&o.json, "json", false, "print JSON instead of a table")
	root.AddCommand(crtCommand(&o), targetsCommand(&o), targetCommand(&o), servicesCommand(&o),
		transfersCommand(&o), countersCommand(&o), portsCommand(&o), lcoresCommand(&o), keysCommand(&o), flowsCommand(&o),
		applicationsCommand(&o), doctorCommand(&o), versionCommand(&o), nicCommand(&o), certsCommand(&o), explainCommand(&o))
	return root
}

func (o *options) client() *admin.Client {
	if o.socket != "" {
		return admin.NewClient(o.socket)
	}
	for _, path := range defaultSockets {
		if _, err := os.Lstat(path); err == nil {
			return admin.NewClient(path)
		}
	}
	return admin.NewClient(defaultSockets[0])
}

// show prints v as JSON, or else what rows writes as a table: cells separated by tabs.
func (o *options) show(out io.Writer, v any, rows func(w io.Writer)) error {
	if o.json {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	rows(w)
	return w.Flush()
}

// ask makes a command without arguments that gets a list from the daemon and shows it.
func ask[T any](o *options, use, short string, get func(*admin.Client, context.Context) (T, error),
	rows func(io.Writer, T)) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := get(o.client(), cmd.Context())
			if err != nil {
				return err
			}
			return o.show(cmd.OutOrStdout(), v, func(w io.Writer) { rows(w, v) })
		},
	}
}
