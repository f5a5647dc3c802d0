package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// bpffs mounts a BPF file system for one host, once, so that what its agent pins there survives the agent and nobody
// else sees it. The mount point is what /sys/fs/bpf is on a real host.
func (l *Lab) bpffs(h *Host) error {
	path := h.Path("bpf")
	switch err := os.Mkdir(path, 0o700); {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	if err := unix.Mount("bpf", path, "bpf", 0, "mode=0700"); err != nil {
		return fmt.Errorf("mount %s: %w", path, err)
	}
	return nil
}
