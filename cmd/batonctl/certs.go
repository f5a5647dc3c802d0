package main

import (
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"baton/control/xcf"
)

// issued says which files a command made.
type issued struct {
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
}

func certsCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "certs", Short: "Make the certificates by which hosts know each other"}
	cmd.AddCommand(certsInitCommand(o), certsIssueCommand(o))
	return cmd
}

func certsInitCommand(o *options) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "init", Short: "Make the cluster's certificate authority: ca.pem and ca.key", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := xcf.CreateCA(dir); err != nil {
				return err
			}
			return o.showIssued(cmd, dir, "ca")
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "directory of the authority; keep ca.key off the hosts")
	return cmd
}

func certsIssueCommand(o *options) *cobra.Command {
	var (
		dir, role string
		valid     time.Duration
		addresses []string
	)
	cmd := &cobra.Command{
		Use: "issue NAME", Short: "Make key and certificate of a host: NAME.pem and NAME.key", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ips, err := parseAddresses(addresses)
			if err != nil {
				return err
			}
			r, err := parseRole(role)
			if err != nil {
				return err
			}
			if err := xcf.IssueHost(dir, r, args[0], valid, ips...); err != nil {
				return err
			}
			return o.showIssued(cmd, dir, args[0])
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", ".", "directory of the authority; the files are made there")
	f.StringVar(&role, "role", "", "router (a routing host) or target (a backend); required")
	f.DurationVar(&valid, "valid", xcf.HostValidity, "how long it is valid; negative: expired already")
	f.StringSliceVar(&addresses, "ip", nil, "addresses to name in it, for other tools; Baton goes by the name")
	_ = cmd.MarkFlagRequired("role") // fails only for a flag that is not defined
	return cmd
}

func (o *options) showIssued(cmd *cobra.Command, dir, name string) error {
	files := issued{filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")}
	return o.show(cmd.OutOrStdout(), files, func(w io.Writer) {
		fmt.Fprintf(w, "certificate\t%s\nkey\t%s\n", files.Certificate, files.Key)
	})
}

func parseRole(s string) (xcf.Role, error) {
	for _, r := range []xcf.Role{xcf.RoleRouter, xcf.RoleTarget} {
		if s == string(r) {
			return r, nil
		}
	}
	return "", fmt.Errorf("--role is %q: router or target", s)
}

func parseAddresses(texts []string) ([]netip.Addr, error) {
	ips := make([]netip.Addr, 0, len(texts))
	for _, s := range texts {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("--ip: %w", err)
		}
		ips = append(ips, a)
	}
	return ips, nil
}
