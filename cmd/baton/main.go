// Baton is the daemon of a routing host: it owns virtual addresses (DVIPAs), talks to clients until it knows who should
// serve them, and hands their live connections over.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"baton/control/admin"
	"baton/control/config"
)

// errUnhealthy ends doctor and run when a check of the host failed; the findings say why.
var errUnhealthy = errors.New("the host is not set up as it should be")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "baton:", err)
		stop()
		os.Exit(1)
	}
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "baton",
		Short:         "Routing host of a Baton cluster",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(runCommand(), checkCommand(), doctorCommand(), &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "baton %s (%s)\n", version(), runtime.Version())
		},
	})
	return root
}

func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", "", "configuration file; required")
	_ = cmd.MarkFlagRequired("config") // fails only for a flag that is not defined
}

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check FILE", Short: "Check a configuration file", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := config.LoadRouter(args[0])
			if err != nil {
				return err
			}
			for _, w := range cfg.Warnings() {
				fmt.Fprintln(cmd.OutOrStdout(), "warning:", w)
			}
			if err := cfg.CheckFiles(); err != nil { // they may be on the host only that the file is for
				fmt.Fprintln(cmd.OutOrStdout(), "warning:", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", args[0])
			return nil
		},
	}
}

func doctorCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use: "doctor", Short: "Check that this host can be the routing host of a configuration", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.LoadRouter(path)
			if err != nil {
				return err
			}
			findings, err := examine(cfg)
			if err != nil {
				return err
			}
			return report(cmd.OutOrStdout(), findings)
		},
	}
	configFlag(cmd, &path)
	return cmd
}

func report(w io.Writer, findings []admin.Finding) (err error) {
	for _, f := range findings {
		word := "ok  "
		if !f.OK {
			word, err = "FAIL", errUnhealthy
		}
		fmt.Fprintf(w, "%s %s: %s\n", word, f.Check, f.Detail)
	}
	return err
}

// version is the module's version, or the commit that it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return s.Value[:12]
		}
	}
	return info.Main.Version
}
