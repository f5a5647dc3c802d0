package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"baton/control/admin"
)

const example = "../../configs/target.example.yaml"

func run(args ...string) (string, error) {
	var out bytes.Buffer
	cmd := newCommand()
	cmd.SetOut(&out)
	cmd.SetArgs(args)
	err := cmd.Execute()
	return out.String(), err
}

func TestCheckAcceptsTheExample(t *testing.T) {
	if out, err := run("check", example); err != nil || !strings.HasSuffix(out, ": ok\n") {
		t.Errorf("%q (%v)", out, err)
	}
}

func TestCheckSaysWhereAFileIsWrong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "target.yaml")
	if err := os.WriteFile(path, []byte("host: t1\nnonsense: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := run("check", path); err == nil || !strings.Contains(err.Error(), path+":2:") {
		t.Errorf("error %v, want one at line 2", err)
	}
}

// The host is not taken apart under a running agent.
func TestCleanupRefusesWhileAnAgentRuns(t *testing.T) {
	dir := t.TempDir()
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "target.sock")
	path := filepath.Join(dir, "target.yaml")
	text = bytes.ReplaceAll(text, []byte("/run/baton/target.sock"), []byte(socket))
	text = bytes.ReplaceAll(text, []byte("/sys/fs/bpf/baton"), []byte(filepath.Join(dir, "bpf")))
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	agent, err := admin.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := run("cleanup", "-c", path); !errors.Is(err, admin.ErrInUse) {
		t.Errorf("error %v, want %v", err, admin.ErrInUse)
	}
	if err := agent.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	if _, err := run("cleanup", "-c", path); err != nil {
		t.Errorf("without an agent: %v", err)
	}
}
