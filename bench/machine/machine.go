// Package machine tells where a benchmark's numbers are from: the processor, the kernel, how busy both were, which
// packages were used and which source was measured. Its functions read proc(5), dpkg and git.
package machine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Text is a file without the space around it; "" when there is none.
func Text(path string) string {
	b, _ := os.ReadFile(path)
	return strings.TrimSpace(string(b))
}

// Value is that of the first line "key : value" of a file; "" when there is none: not every architecture has the same
// lines.
func Value(path, key string) string {
	for line := range strings.Lines(Text(path)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// CPU is the processor's name.
func CPU() string { return Value("/proc/cpuinfo", "model name") }

// Kernel is the running kernel's release.
func Kernel() string { return Text("/proc/sys/kernel/osrelease") }

// Load is the number of programs that ran or waited for a processor, on average over the last minute.
func Load() string {
	minute, _, _ := strings.Cut(Text("/proc/loadavg"), " ")
	return minute
}

// Package is the name and version of an installed Debian package.
func Package(ctx context.Context, name string) (string, error) {
	return output(ctx, "dpkg-query", "--show", "--showformat", "${Package} ${Version}", name)
}

// Commit is the source that is measured, and whether the working tree differs from it in some paths (git's pathspecs).
func Commit(ctx context.Context, paths ...string) (hash string, modified bool, err error) {
	if hash, err = output(ctx, "git", "rev-parse", "HEAD"); err != nil {
		return "", false, err
	}
	status, err := output(ctx, "git", append([]string{"status", "--porcelain", "--untracked-files=no", "--"}, paths...)...)
	return hash, status != "", err
}

// output is what a command prints, without the space around it.
func output(ctx context.Context, name string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return string(bytes.TrimSpace(out)), nil
}
