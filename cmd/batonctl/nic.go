package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/intel-go/nff-go/devices"
	"github.com/spf13/cobra"
)

// nic is one network device on a bus whose devices DPDK can drive.
type nic struct {
	ID        string `json:"id"`        // PCI address or VMBus UUID: what `device:` in the configuration takes
	Driver    string `json:"driver"`    // "" for none
	Interface string `json:"interface"` // the kernel's name; "" when the kernel does not drive it
	Vendor    string `json:"vendor"`    // PCI IDs as the device has them, 0x1af4
	Device    string `json:"device"`
}

// bus is where sysfs lists devices, and what it says in class (or class_id) of network devices.
type bus struct{ dir, classFile, class string }

var buses = []bus{
	{"/sys/bus/pci/devices", "class", "0x02"},                                        // base class 02: network
	{"/sys/bus/vmbus/devices", "class_id", "{f8615163-df3e-46c5-913f-f2d2f965ed0e}"}, // Hyper-V synthetic network
}

func nicCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "nic", Short: "Network devices that a forwarder can drive"}
	cmd.AddCommand(&cobra.Command{
		Use: "list", Short: "List network devices, their drivers and kernel interfaces", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			nics, err := listNICs(buses)
			if err != nil {
				return err
			}
			return o.show(cmd.OutOrStdout(), nics, func(w io.Writer) { writeNICs(w, nics) })
		},
	})
	return cmd
}

func writeNICs(w io.Writer, nics []nic) {
	fmt.Fprintln(w, "ID\tDRIVER\tINTERFACE\tVENDOR\tDEVICE")
	for _, n := range nics {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", n.ID, dash(n.Driver), dash(n.Interface), dash(n.Vendor), dash(n.Device))
	}
}

func listNICs(buses []bus) ([]nic, error) {
	nics := []nic{}
	for _, b := range buses {
		entries, err := os.ReadDir(b.dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list devices: %w", err)
		}
		for _, e := range entries {
			dir := filepath.Join(b.dir, e.Name())
			if !strings.HasPrefix(attribute(dir, b.classFile), b.class) {
				continue
			}
			n, err := readNIC(dir, e.Name())
			if err != nil {
				return nil, err
			}
			nics = append(nics, n)
		}
	}
	return nics, nil
}

func readNIC(dir, id string) (nic, error) {
	dev, err := devices.New(id)
	if err != nil {
		return nic{}, fmt.Errorf("look at %s (needs lspci: package pciutils): %w", id, err)
	}
	driver, err := dev.CurrentDriver()
	if err != nil {
		return nic{}, fmt.Errorf("read driver of %s: %w", id, err)
	}
	return nic{ID: dev.ID(), Driver: driver, Interface: kernelInterface(dir), Vendor: attribute(dir, "vendor"),
		Device: attribute(dir, "device")}, nil
}

// kernelInterface finds the kernel's name of a device; virtio puts it one level deeper than other drivers.
func kernelInterface(dir string) string {
	for _, pattern := range []string{"net/*", "virtio*/net/*"} {
		if found, err := filepath.Glob(filepath.Join(dir, pattern)); err == nil && len(found) > 0 {
			return filepath.Base(found[0])
		}
	}
	return ""
}

func attribute(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
