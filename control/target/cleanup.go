package target

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Cleanup takes everything back that agents have left at the host under this bpffs: guards, pins, DVIPAs, sysctls, and
// the bpffs itself if an agent mounted it. Imported connections lose their address where the agent had added it. No
// agent may run.
func Cleanup(bpffs string) error {
	if !isBPFFS(existing(bpffs)) {
		return nil // no bpffs, no pins, nothing to take back
	}
	entries, err := os.ReadDir(bpffs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	mounted := ""
	for _, e := range entries {
		namespace, ok := namespaceOf(e.Name())
		if !ok {
			continue
		}
		mount, err := cleanNamespace(namespace, filepath.Join(bpffs, e.Name()))
		mounted += mount
		errs = append(errs, err)
	}
	return errors.Join(append(errs, leaveBPFFS(bpffs, mounted))...)
}

// namespaceOf is the reverse of pinDir.
func namespaceOf(dir string) (name string, ok bool) {
	if dir == ownPins {
		return "", true
	}
	escaped, ok := strings.CutPrefix(dir, namespacePins)
	if !ok {
		return "", false
	}
	name, err := url.PathUnescape(escaped)
	return name, err == nil
}

// cleanNamespace restores one namespace, removes its pins, and says which bpffs an agent mounted when it began here. A
// namespace that is gone took its settings along.
func cleanNamespace(name, dir string) (mounted string, err error) {
	u, err := openUndo(dir)
	if err != nil {
		return "", err
	}
	changes, err := u.all()
	u.Close()
	if err != nil {
		return "", err
	}
	if ns, openErr := OpenNamespace(name); openErr == nil {
		err = ns.Do(func() error { return restoreHost(changes) })
		ns.Close()
	}
	for change := range changes {
		if path, ok := strings.CutPrefix(change, undoMount); ok {
			mounted = path
		}
	}
	return mounted, errors.Join(err, removePins(dir))
}

// leaveBPFFS unmounts what an agent mounted, or removes the directory in what was there.
func leaveBPFFS(dir, mounted string) error {
	if mounted == "" || mounted != dir {
		err := os.Remove(dir)
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	if mounted == "" {
		return nil
	}
	if err := unix.Unmount(mounted, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", mounted, err)
	}
	return nil
}
