// Baton is the daemon of a host with a poll-mode port. With the role router it owns virtual addresses (DVIPAs), talks to
// clients until it knows who should serve them, and hands their live connections over. With the role target it takes
// connections that were handed over and continues them in userspace.
package main

import (
	"github.com/spf13/cobra"

	"baton/cmd/internal/daemon"
	"baton/control/admin"
	"baton/control/config"
)

func main() { daemon.Main(newCommand()) }

func newCommand() *cobra.Command {
	root := &cobra.Command{Use: "baton", Short: "Routing host of a Baton cluster, or target host in userspace"}
	root.AddCommand(
		daemon.WithConfig("run", "Run the host", config.LoadBaton, runBaton),
		daemon.Check(config.LoadBaton),
		daemon.Doctor("Check that this host can be what its configuration says", config.LoadBaton, examineBaton),
		daemon.VersionCommand(),
	)
	return root
}

// runBaton runs the host in its role.
func runBaton(cmd *cobra.Command, cfg config.Baton) error {
	if t, ok := cfg.(*config.UserTarget); ok {
		return runTarget(cmd, t)
	}
	return runRouter(cmd, cfg.(*config.Router))
}

// examineBaton checks the host for its role.
func examineBaton(cfg config.Baton) ([]admin.Finding, error) {
	if t, ok := cfg.(*config.UserTarget); ok {
		return examineTarget(t)
	}
	return examine(cfg.(*config.Router))
}
