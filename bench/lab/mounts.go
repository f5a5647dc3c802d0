package lab

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// bpffs mounts a BPF file system for one host, so that what its agent pins there survives the agent and nobody else
// sees it. It returns the mount point, /sys/fs/bpf to the agent.
func (l *Lab) bpffs(h *Host) (string, error) {
	path := h.Path("bpf")
	if err := os.MkdirAll(path, 0o700); err != nil {
		return "", err
	}
	if err := unix.Mount("bpf", path, "bpf", 0, "mode=0700"); err != nil {
		return "", fmt.Errorf("mount %s: %w", path, err)
	}
	return path, nil
}
