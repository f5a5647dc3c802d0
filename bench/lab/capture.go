package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"baton/bench/judge"
)

// The ring that the kernel writes frames to (packet(7), TPACKET_V3). 64 MiB hold half of a 100 MB download even if the
// reader does not run at all meanwhile.
const (
	blockSize    = 1 << 20
	blockCount   = 64
	blockTimeout = 5 * time.Millisecond // an incomplete block is handed over after this
)

// markerType is the EtherType of the frames by which a capture finds out that it has seen everything before (IEEE 802
// local experimental Ethertype 1). They are not part of the capture.
const markerType = 0x88b5

// Capture records every frame of a host's data interface, both directions, in order, in memory.
type Capture struct {
	host  *Host
	index int // of the interface
	fd    int
	ring  []byte
	stop  chan struct{}
	ended chan struct{}

	mu      sync.Mutex
	frames  []judge.Frame
	markers uint64    // highest marker seen
	last    time.Time // when the last frame was read
	err     error
	arena   []byte // room for the next frames
	marked  uint64 // highest marker sent
}

// Capture begins to record. The host's interface must have no offloads, as the lab's have none.
func (h *Host) Capture() (*Capture, error) {
	c := &Capture{host: h, fd: -1, stop: make(chan struct{}), ended: make(chan struct{}), last: time.Now()}
	if err := h.Do(c.open); err != nil {
		c.release()
		return nil, fmt.Errorf("capture on %s: %w", h.Name, err)
	}
	go c.read()
	return c, nil
}

// open makes the packet socket and its ring, on a thread in the host's namespace.
func (c *Capture) open() error {
	dev, err := net.InterfaceByName(DataInterface)
	if err != nil {
		return err
	}
	c.index = dev.Index
	// Protocol 0: nothing is received before bind, so nothing of other interfaces.
	if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(c.fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return fmt.Errorf("set packet version: %w", err)
	}
	request := unix.TpacketReq3{
		Block_size: blockSize, Block_nr: blockCount, Frame_size: 2048, Frame_nr: blockSize / 2048 * blockCount,
		Retire_blk_tov: uint32(blockTimeout.Milliseconds()),
	}
	if err := unix.SetsockoptTpacketReq3(c.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &request); err != nil {
		return fmt.Errorf("make ring: %w", err)
	}
	if c.ring, err = unix.Mmap(c.fd, 0, blockSize*blockCount, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map ring: %w", err)
	}
	return unix.Bind(c.fd, allFrames(c.index))
}

// allFrames is where a packet socket has to be bound to get the frames of every protocol of an interface.
func allFrames(index int) *unix.SockaddrLinklayer {
	return &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL << 8, Ifindex: index} // in network byte order
}

// read copies frames out of the ring, block by block, until stop.
func (c *Capture) read() {
	defer close(c.ended)
	for block := 0; ; block = (block + 1) % blockCount {
		if !c.await(block) {
			return
		}
		c.take(block)
	}
}

func (c *Capture) header(block int) *unix.TpacketHdrV1 {
	desc := (*unix.TpacketBlockDesc)(unsafe.Pointer(&c.ring[block*blockSize]))
	return (*unix.TpacketHdrV1)(unsafe.Pointer(&desc.Hdr))
}

// await waits for the kernel to hand a block over; false: the capture is to end.
func (c *Capture) await(block int) bool {
	for loadStatus(c.header(block))&unix.TP_STATUS_USER == 0 {
		select {
		case <-c.stop:
			return false
		default:
		}
		fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN | unix.POLLERR}}
		if _, err := unix.Poll(fds, 20); err != nil && !errors.Is(err, unix.EINTR) {
			c.fail(err)
			return false
		}
	}
	return true
}

// take copies a block's frames and gives the block back.
func (c *Capture) take(block int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.header(block)
	base := c.ring[block*blockSize : (block+1)*blockSize]
	at := int(h.Offset_to_first_pkt)
	for range h.Num_pkts {
		f := (*unix.Tpacket3Hdr)(unsafe.Pointer(&base[at]))
		data := base[at+int(f.Mac):][:f.Snaplen]
		c.store(time.Unix(int64(f.Sec), int64(f.Nsec)), data)
		at += int(f.Next_offset)
	}
	storeStatus(h, unix.TP_STATUS_KERNEL)
}

// store appends one frame; a marker is noted instead.
func (c *Capture) store(at time.Time, data []byte) {
	if len(data) >= 22 && binary.BigEndian.Uint16(data[12:]) == markerType {
		c.markers = max(c.markers, binary.BigEndian.Uint64(data[14:]))
		return
	}
	if len(c.arena) < len(data) {
		c.arena = make([]byte, max(blockSize, len(data)))
	}
	n := copy(c.arena, data)
	c.frames = append(c.frames, judge.Frame{Time: at, Data: c.arena[:n:n]})
	c.arena = c.arena[n:]
	c.last = time.Now()
}

func (c *Capture) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

// Sync waits until everything that the interface saw before is recorded.
func (c *Capture) Sync(ctx context.Context) error {
	if err := c.host.Do(c.mark); err != nil {
		return fmt.Errorf("mark capture: %w", err)
	}
	return Until(ctx, "the capture has its marker", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.err != nil || c.markers == c.marked {
			return c.err
		}
		return errors.New("not seen yet")
	})
}

// mark sends a marker to the interface's own address; no host takes it.
func (c *Capture) mark() error {
	dev, err := net.InterfaceByIndex(c.index)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	c.mu.Lock()
	c.marked++
	number := c.marked
	c.mu.Unlock()
	frame := slices.Concat(dev.HardwareAddr, dev.HardwareAddr)
	frame = binary.BigEndian.AppendUint16(frame, markerType)
	frame = binary.BigEndian.AppendUint64(frame, number)
	return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: c.index})
}

// Quiet waits until the interface has seen no frame for d.
func (c *Capture) Quiet(ctx context.Context, d time.Duration) error {
	return Until(ctx, "the network is quiet", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if time.Since(c.last) < d {
			return errors.New("frames still come")
		}
		return nil
	})
}

// Frames returns what is recorded so far. The frames themselves are shared and never change.
func (c *Capture) Frames() []judge.Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.frames[:len(c.frames):len(c.frames)]
}

// Stop ends the capture with everything that the interface saw until now, and returns it. Frames that the kernel had no
// room for are counted in it.
func (c *Capture) Stop(ctx context.Context) (judge.Capture, error) {
	defer c.release()
	syncErr := c.Sync(ctx)
	close(c.stop)
	<-c.ended
	stats, err := unix.GetsockoptTpacketStatsV3(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return judge.Capture{}, fmt.Errorf("read capture statistics: %w", err)
	}
	return judge.Capture{Frames: c.frames, Lost: int(stats.Drops)}, syncErr
}

func (c *Capture) release() {
	if c.ring != nil {
		_ = unix.Munmap(c.ring)
		c.ring = nil
	}
	if c.fd >= 0 {
		_ = unix.Close(c.fd)
		c.fd = -1
	}
}
