package bpf

import (
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
)

// All objects must pass the verifier of the running kernel.
func TestProgramsLoad(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("loading BPF programs needs root")
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	specs := map[string]func() (*ebpf.CollectionSpec, error){
		"import": LoadImport, "guard": LoadGuard, "lockstep": LoadLockstep, "move": LoadMove,
	}
	for name, load := range specs {
		t.Run(name, func(t *testing.T) {
			spec, err := load()
			if err != nil {
				t.Fatal(err)
			}
			c, err := ebpf.NewCollection(spec)
			var rejected *ebpf.VerifierError
			if errors.As(err, &rejected) {
				t.Fatalf("%+v", rejected)
			}
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		})
	}
}
