package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"baton/control/admin"
	"baton/control/config"
)

// ErrUnhealthy ends doctor and run when a check of the host failed; the findings say what to set.
var ErrUnhealthy = errors.New("the host is not set up as it should be")

// Config is a configuration file of either kind of host.
type Config interface {
	Warnings() []*config.Problem
	CheckFiles() error // those that the file names
}

// Main runs a command with the process's arguments until it ends or SIGINT or SIGTERM comes. An error goes to standard
// error, after the program's name, and ends the process with status 1.
func Main(root *cobra.Command) {
	root.SilenceUsage, root.SilenceErrors = true, true
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", root.Name(), err)
		stop()
		os.Exit(1)
	}
}

// WithConfig is a command that takes a configuration file with -c.
func WithConfig[C Config](use, short string, load func(path string) (C, error), run func(*cobra.Command, C) error,
) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := load(path)
			if err != nil {
				return err
			}
			return run(cmd, c)
		},
	}
	cmd.Flags().StringVarP(&path, "config", "c", "", "configuration file; required")
	_ = cmd.MarkFlagRequired("config") // fails only for a flag that is not defined
	return cmd
}

// Check is the command that checks a configuration file.
func Check[C Config](load func(path string) (C, error)) *cobra.Command {
	return &cobra.Command{
		Use: "check FILE", Short: "Check a configuration file", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := load(args[0])
			if err != nil {
				return err
			}
			for _, w := range c.Warnings() {
				fmt.Fprintln(cmd.OutOrStdout(), "warning:", w)
			}
			if err := c.CheckFiles(); err != nil { // they may be on the host only that the file is for
				fmt.Fprintln(cmd.OutOrStdout(), "warning:", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", args[0])
			return nil
		},
	}
}

// Doctor is the command that examines the host for a configuration.
func Doctor[C Config](short string, load func(path string) (C, error), examine func(C) ([]admin.Finding, error),
) *cobra.Command {
	var asJSON bool
	cmd := WithConfig("doctor", short, load, func(cmd *cobra.Command, c C) error {
		findings, err := examine(c)
		if err != nil {
			return err
		}
		return report(cmd.OutOrStdout(), findings, asJSON)
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON instead of lines")
	return cmd
}

// report prints findings. The error is ErrUnhealthy if one of them is not OK.
func report(w io.Writer, findings []admin.Finding, asJSON bool) error {
	var err error
	if slices.ContainsFunc(findings, func(f admin.Finding) bool { return !f.OK }) {
		err = ErrUnhealthy
	}
	if asJSON {
		return errors.Join(json.NewEncoder(w).Encode(findings), err)
	}
	for _, f := range findings {
		word := "ok  "
		if !f.OK {
			word = "FAIL"
		}
		fmt.Fprintf(w, "%s %s: %s\n", word, f.Check, f.Detail)
	}
	return err
}

// VersionCommand prints the program's version.
func VersionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			fmt.Fprintf(cmd.OutOrStdout(), "%s %s (%s)\n", cmd.Root().Name(), Version(), runtime.Version())
		},
	}
}
