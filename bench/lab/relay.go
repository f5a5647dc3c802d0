package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Pass decides what becomes of a frame on its way: what goes on in its place, in that order. Calls for the two directions
// come from two goroutines.
type Pass func(frame []byte) [][]byte

// Relay is somebody in the middle of the link between a host and the data network's switch: every frame is taken off the
// wire, with its VLAN tag, and what a function makes of it is put back.
type Relay struct {
	splice
	stop chan struct{}
	both sync.WaitGroup
}

// Relay puts a relay into a host's link. Close takes it out again.
func (l *Lab) Relay(h *Host, toHost, fromHost Pass) (*Relay, error) {
	r := &Relay{splice: splice{namespace: l.dataSwitch(), port: "p-" + h.Name}, stop: make(chan struct{})}
	err := r.open()
	for _, end := range r.ends {
		if err == nil {
			err = unix.SetsockoptInt(end.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("relay at %s: %w", h.Name, err), r.mend())
	}
	r.both.Go(func() { r.carry(switchEnd, toHost) })
	r.both.Go(func() { r.carry(hostEnd, fromHost) })
	return r, nil
}

// Close connects the host to its switch again.
func (r *Relay) Close() error {
	close(r.stop)
	r.both.Wait() // within the receive timeout
	return r.mend()
}

// carry passes on what arrives at one end, until Close.
func (r *Relay) carry(end int, pass Pass) {
	from, to := r.ends[end].fd, r.ends[1-end].fd
	buf, control := make([]byte, 65536), make([]byte, 128)
	for {
		select {
		case <-r.stop:
			return
		default:
		}
		n, controlLen, _, _, err := unix.Recvmsg(from, buf, control, 0)
		if err != nil {
			continue // the timeout, or an interface that goes down
		}
		for _, frame := range pass(retag(buf[:n], control[:controlLen])) {
			_ = unix.Send(to, frame, 0) // what the link does not take is lost, as on a wire
		}
	}
}

// retag returns a copy of a received frame with the VLAN tag that the kernel took off (packet(7), PACKET_AUXDATA).
func retag(frame, control []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil || len(messages) == 0 || len(messages[0].Data) < int(unsafe.Sizeof(unix.TpacketAuxdata{})) {
		return slices.Clone(frame)
	}
	aux := (*unix.TpacketAuxdata)(unsafe.Pointer(&messages[0].Data[0]))
	if aux.Status&unix.TP_STATUS_VLAN_VALID == 0 || len(frame) < 12 {
		return slices.Clone(frame)
	}
	return Tag(frame, aux.Vlan_tci)
}

// Tag returns a copy of a frame with an IEEE 802.1Q tag.
func Tag(frame []byte, tci uint16) []byte {
	tag := binary.BigEndian.AppendUint16([]byte{0x81, 0x00}, tci)
	return slices.Concat(frame[:12], tag, frame[12:])
}

// Untag takes the tag off a frame, which it overwrites. ok is false if it has none.
func Untag(frame []byte) (tci uint16, untagged []byte, ok bool) {
	if len(frame) < 18 || binary.BigEndian.Uint16(frame[12:]) != 0x8100 {
		return 0, frame, false
	}
	tci = binary.BigEndian.Uint16(frame[14:])
	copy(frame[4:], frame[:12])
	return tci, frame[4:], true
}
