package target

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// systemBPFFS is where a host's bpffs usually is. It lies in sysfs, where no directory can be made to mount on.
const systemBPFFS = "/sys/fs/bpf"

// mountBPFFS sees to it that dir exists inside a bpffs, and says where it had to mount one; "" where it had not.
func mountBPFFS(dir string) (mounted string, err error) {
	parent := existing(dir)
	if isBPFFS(parent) {
		return "", os.MkdirAll(dir, 0o700)
	}
	mounted = dir
	if within(dir, systemBPFFS) {
		mounted = systemBPFFS
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	if err := unix.Mount("bpf", mounted, "bpf", 0, "mode=0700"); err != nil {
		return "", fmt.Errorf("mount a bpffs on %s: %w", mounted, err)
	}
	return mounted, os.MkdirAll(dir, 0o700)
}

// existing is the nearest directory above dir, or dir, that is there.
func existing(dir string) string {
	for dir != "/" && dir != "." {
		if _, err := os.Stat(dir); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

func within(dir, parent string) bool {
	rel, err := filepath.Rel(parent, dir)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

func isBPFFS(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == unix.BPF_FS_MAGIC
}

// Directories of pins: of the agent's own namespace, and of others by name.
const (
	ownPins       = "own"
	namespacePins = "netns-"
)

// pinDir is the directory of a namespace's pins.
func pinDir(bpffs, namespace string) string {
	if namespace == "" {
		return filepath.Join(bpffs, ownPins)
	}
	return filepath.Join(bpffs, namespacePins+pinName(namespace))
}

// pinName makes a name that a bpffs takes (it refuses dots) and that differs for different names.
func pinName(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '-' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// openPinned opens the pinned map of that name, or makes and pins it. One of another layout, which another version
// made, is replaced.
func openPinned(dir string, spec *ebpf.MapSpec) (*ebpf.Map, error) {
	spec.Pinning = ebpf.PinByName
	options := ebpf.MapOptions{PinPath: dir}
	m, err := ebpf.NewMapWithOptions(spec, options)
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		if err := os.Remove(filepath.Join(dir, spec.Name)); err != nil {
			return nil, err
		}
		m, err = ebpf.NewMapWithOptions(spec, options)
	}
	if err != nil {
		return nil, fmt.Errorf("pin map %s in %s: %w", spec.Name, dir, err)
	}
	return m, nil
}

// removePins removes a directory of pins, and with them whatever only they kept alive.
func removePins(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
	}
	return errors.Join(append(errs, os.Remove(dir))...)
}
