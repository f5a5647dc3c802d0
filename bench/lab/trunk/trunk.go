package trunk

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Trunk is a port that tags. It exists until Close.
type Trunk struct {
	programs TrunkProgramsObjects
	hooks    []link.Link
}

// Counts is what came by.
type Counts struct {
	Sent    uint64 // frames to the host, in its VLAN, and once more in another and without a tag
	Tagged  uint64 // frames from the host with the tag of its VLAN
	Strange uint64 // frames from the host with another tag, or none
}

// Open makes the port with that index in the calling thread's network namespace one of vlan; other is the other VLAN on
// the cable. The port's VLAN offloads have to be off.
func Open(index int, vlan, other uint16) (*Trunk, error) {
	spec, err := LoadTrunkPrograms()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(spec.Variables["vlan"].Set(vlan), spec.Variables["other_vlan"].Set(other)); err != nil {
		return nil, fmt.Errorf("choose VLANs: %w", err)
	}
	t := &Trunk{}
	if err := spec.LoadAndAssign(&t.programs, nil); err != nil {
		return nil, fmt.Errorf("load programs: %w", err)
	}
	err = errors.Join(t.attach(index, t.programs.ToHost, ebpf.AttachTCXEgress),
		t.attach(index, t.programs.FromHost, ebpf.AttachTCXIngress))
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func (t *Trunk) attach(index int, program *ebpf.Program, hook ebpf.AttachType) error {
	l, err := link.AttachTCX(link.TCXOptions{Interface: index, Program: program, Attach: hook})
	if err != nil {
		return fmt.Errorf("attach to %v: %w", hook, err)
	}
	t.hooks = append(t.hooks, l)
	return nil
}

// Counts reads the counters.
func (t *Trunk) Counts() (c Counts, err error) {
	err = errors.Join(t.programs.Sent.Get(&c.Sent), t.programs.Tagged.Get(&c.Tagged), t.programs.Strange.Get(&c.Strange))
	return c, err
}

// Close makes the port one for frames without tags again.
func (t *Trunk) Close() error {
	var errs []error
	for _, l := range t.hooks {
		errs = append(errs, l.Close())
	}
	return errors.Join(append(errs, t.programs.Close())...)
}
