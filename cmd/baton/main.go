// Baton is the daemon of a routing host: it owns virtual addresses (DVIPAs), talks to clients until it knows who should
// serve them, and hands their live connections over.
package main

import (
	"github.com/spf13/cobra"

	"baton/cmd/internal/daemon"
	"baton/control/config"
)

func main() { daemon.Main(newCommand()) }

func newCommand() *cobra.Command {
	root := &cobra.Command{Use: "baton", Short: "Routing host of a Baton cluster"}
	root.AddCommand(
		daemon.WithConfig("run", "Run the routing host", config.LoadRouter, runRouter),
		daemon.Check(config.LoadRouter),
		daemon.Doctor("Check that this host can be the routing host of a configuration", config.LoadRouter, examine),
		daemon.VersionCommand(),
	)
	return root
}
