package machine

import (
	"os"
	"path/filepath"
	"testing"
)

func TestValueIsThatOfTheFirstLineWithTheKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "info")
	if err := os.WriteFile(path, []byte("\nmodel\t: 7\nmodel name\t: A: B \nmodel name\t: C\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"model name": "A: B", "model": "7", "cache": ""} {
		if got := Value(path, key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	if got := Value(path+"-absent", "model"); got != "" {
		t.Errorf("of no file: %q", got)
	}
}

func TestLinuxTellsLoadAndKernel(t *testing.T) {
	if Load() == "" || Kernel() == "" {
		t.Errorf("load %q, kernel %q", Load(), Kernel())
	}
}
