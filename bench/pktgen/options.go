package main

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"baton/cgo"
)

// options is what the command line says.
type options struct {
	devices   []string
	lcore     int
	memory    int
	hugepages string

	kind     string
	size     string
	flows    uint64
	clients  string
	service  string
	port     uint16
	vlan     uint16
	srcMAC   string
	dstMAC   string
	gateway  string
	own      string
	host     string
	request  string
	timeout  time.Duration
	random   bool
	hold     bool
	rate     string
	lineRate string
	duration time.Duration
	drain    time.Duration
	late     time.Duration
	nap      bool
}

func (o *options) flags(f *pflag.FlagSet) {
	f.StringArrayVarP(&o.devices, "device", "d", nil, "DPDK device, a vdev with arguments or a PCI address; frames leave by the "+
		"first, a second one only receives")
	f.IntVar(&o.lcore, "lcore", -1, "CPU of the loop; -1: the last one of the affinity mask")
	f.IntVar(&o.memory, "memory", 64, "MiB for DPDK; without hugepages at least 128")
	f.StringVar(&o.hugepages, "hugepages", "auto", "auto, always or never")
	f.StringVar(&o.kind, "kind", "udp", "frames: "+strings.Join(kindNames, ", "))
	f.StringVar(&o.size, "size", "64", "frame sizes with FCS, sent in turn: 64, or 64,570,1518, or imix (7 x 64, 4 x 570, 1518)")
	f.Uint64Var(&o.flows, "flows", 1000, "flows")
	f.StringVar(&o.clients, "clients", "10.1.0.0/24", "the flows' addresses; they are used in turn, then the next port")
	f.StringVar(&o.service, "service", "10.77.0.10:80", "where the flows go")
	f.Uint16Var(&o.port, "first-port", 1024, "lowest port of the flows")
	f.Uint16Var(&o.vlan, "vlan", 0, "VLAN tag; 0: none")
	f.StringVar(&o.srcMAC, "src-mac", "", `source MAC address; "": the device's`)
	f.StringVar(&o.dstMAC, "dst-mac", "", "destination MAC address")
	f.StringVar(&o.gateway, "gateway", "", "IPv4 address whose MAC address is asked for instead")
	f.StringVar(&o.own, "own", "", `address that asks; "": the first of --clients`)
	f.StringVar(&o.host, "host", "a.example", "handshake: Host of the request")
	f.StringVar(&o.request, "request", "", `handshake: another request, with escapes as in Go ("GET / HTTP/1.1\r\n")`)
	f.DurationVar(&o.timeout, "timeout", 3*time.Second, "handshake: until an unanswered flow begins again; below 20s")
	f.BoolVar(&o.random, "random", false, "flows in random order instead of in turn")
	f.BoolVar(&o.hold, "hold", false, "handshake: keep connections after the response")
	f.StringVar(&o.rate, "rate", "max", "frames per second: 500000, 500k, 1.5M; or 10% of the link; or max")
	f.StringVar(&o.lineRate, "line-rate", "", `speed that percentages are of, in bit/s: 10G; "": the link's`)
	f.DurationVar(&o.duration, "for", 10*time.Second, "length of a trial")
	f.DurationVar(&o.drain, "drain", drain, "how long to wait for frames after a trial")
	f.DurationVar(&o.late, "late", time.Millisecond, "frames that are later than this are given up, and counted as skipped")
	f.BoolVar(&o.nap, "nap", false, "sleep between bursts: for a machine where others need the core")
}

var kindNames = []string{"syn", "ack", "data", "handshake", "udp", "echo"}

var kinds = []cgo.GeneratorKind{cgo.GenerateSYN, cgo.GenerateACK, cgo.GenerateData, cgo.GenerateHandshake, cgo.GenerateUDP,
	cgo.GenerateEcho}

// config is what the generator needs; MAC addresses that are not given stay zero. hz: cycles per second.
func (o *options) config(hz float64) (*cgo.GeneratorConfig, error) {
	c := &cgo.GeneratorConfig{Flows: o.flows, FirstPort: o.port, VLAN: o.vlan, Run: randomRun(),
		Late: uint64(o.late.Seconds() * hz), Timeout: uint64(o.timeout.Seconds() * hz),
		Random: flag(o.random), Hold: flag(o.hold), Nap: flag(o.nap)}
	kind := slices.Index(kindNames, o.kind)
	if kind < 0 {
		return nil, fmt.Errorf("--kind %q: %s are possible", o.kind, strings.Join(kindNames, ", "))
	}
	c.Kind = kinds[kind]
	return c, errors.Join(o.setAddresses(c), o.setMACs(c), o.setSizes(c), o.setRequest(c), o.check())
}

func (o *options) check() error {
	if o.timeout <= 0 || o.timeout >= 20*time.Second {
		return fmt.Errorf("--timeout %v: more than 0s and less than 20s", o.timeout)
	}
	if o.vlan > 4094 {
		return fmt.Errorf("--vlan %d: 1 to 4094, or 0 for none", o.vlan)
	}
	return nil
}

func flag(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// randomRun tells this run's stamps from others'.
func randomRun() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint32(b[:])
}

// maxClientBits bounds the number of client addresses to 2^24.
const maxClientBits = 24

func (o *options) setAddresses(c *cgo.GeneratorConfig) error {
	clients, err := netip.ParsePrefix(o.clients)
	if err != nil {
		return fmt.Errorf("--clients: %w", err)
	}
	service, err := netip.ParseAddrPort(o.service)
	if err != nil {
		return fmt.Errorf("--service: %w", err)
	}
	free := clients.Addr().BitLen() - clients.Bits()
	switch {
	case clients != clients.Masked():
		return fmt.Errorf("--clients %v: has address bits behind its prefix, %v is meant?", clients, clients.Masked())
	case clients.Addr().Is4() != service.Addr().Is4():
		return fmt.Errorf("--clients %v and --service %v are of two families", clients, service)
	case free > maxClientBits:
		return fmt.Errorf("--clients %v: has more than %d addresses", clients, 1<<maxClientBits)
	}
	c.Client, c.Service, c.ServicePort = toIP(clients.Addr()), toIP(service.Addr()), service.Port()
	c.Clients = 1 << free
	if most := uint64(c.Clients) * (65536 - uint64(c.FirstPort)); c.FirstPort == 0 || c.Flows == 0 || c.Flows > most {
		return fmt.Errorf("--flows %d: 1 to %d are possible with these --clients from --first-port %d on", c.Flows, most, c.FirstPort)
	}
	return nil
}

func toIP(a netip.Addr) cgo.IP {
	b := a.As16()
	return cgo.IP{Hi: binary.BigEndian.Uint64(b[:8]), Lo: binary.BigEndian.Uint64(b[8:])}
}

func (o *options) setMACs(c *cgo.GeneratorConfig) error {
	set := func(name, text string, into *[6]byte) error {
		if text == "" {
			return nil
		}
		mac, err := net.ParseMAC(text)
		if err != nil || len(mac) != 6 {
			return fmt.Errorf("--%s %q is no MAC address", name, text)
		}
		*into = [6]byte(mac)
		return nil
	}
	if (o.dstMAC == "") == (o.gateway == "") {
		return errors.New("give --dst-mac or --gateway")
	}
	return errors.Join(set("src-mac", o.srcMAC, &c.SrcMAC), set("dst-mac", o.dstMAC, &c.DstMAC))
}

// imix is the usual mix of 64, 570 and 1518 octets, 7 : 4 : 1.
var imix = []uint16{64, 570, 64, 64, 570, 64, 1518, 64, 570, 64, 64, 570}

func (o *options) setSizes(c *cgo.GeneratorConfig) error {
	sizes := imix
	if o.size != "imix" {
		sizes = nil
		for text := range strings.SplitSeq(o.size, ",") {
			n, err := strconv.ParseUint(text, 10, 16)
			if err != nil || n < 64 || n > cgo.GeneratorFrame {
				return fmt.Errorf("--size %q: 64 to %d, or imix", text, cgo.GeneratorFrame)
			}
			sizes = append(sizes, uint16(n))
		}
	}
	if len(sizes) > cgo.GeneratorSizes {
		return fmt.Errorf("--size has %d sizes, %d are possible", len(sizes), cgo.GeneratorSizes)
	}
	c.SizeCount = uint16(copy(c.Sizes[:], sizes))
	return nil
}

func (o *options) setRequest(c *cgo.GeneratorConfig) error {
	request := fmt.Sprintf("GET / HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", o.host)
	if o.request != "" {
		var err error
		if request, err = strconv.Unquote(`"` + o.request + `"`); err != nil {
			return fmt.Errorf("--request %q: %w", o.request, err)
		}
	}
	if len(request) > cgo.GeneratorRequest {
		return fmt.Errorf("the request has %d octets, %d are possible", len(request), cgo.GeneratorRequest)
	}
	c.RequestLen = uint16(copy(c.Request[:], request))
	return nil
}

// frameOverhead is what a frame takes on the wire besides itself: preamble, start delimiter and gap.
const frameOverhead = 20

// lineFrames is how many frames of these sizes a second of the link has.
func lineFrames(bitsPerSecond float64, sizes []uint16) float64 {
	total := 0
	for _, s := range sizes {
		total += int(s) + frameOverhead
	}
	return bitsPerSecond / 8 / (float64(total) / float64(len(sizes)))
}

// parseNumber reads a number with a unit of k, M or G.
func parseNumber(text string) (float64, error) {
	unit := 1.0
	switch {
	case strings.HasSuffix(text, "k"):
		unit = 1e3
	case strings.HasSuffix(text, "M"):
		unit = 1e6
	case strings.HasSuffix(text, "G"):
		unit = 1e9
	}
	n, err := strconv.ParseFloat(strings.TrimRight(text, "kMG"), 64)
	if err != nil || n <= 0 || math.IsInf(n, 0) || math.IsNaN(n) {
		return 0, fmt.Errorf("%q is no number like 500000, 500k, 1.5M", text)
	}
	return n * unit, nil
}

// parseRate reads a rate; 0 is as fast as it goes. line: frames per second of the link, 0 unknown.
func parseRate(text string, line float64) (float64, error) {
	if text == "max" {
		return 0, nil
	}
	percent, ok := strings.CutSuffix(text, "%")
	if !ok {
		return parseNumber(text)
	}
	n, err := parseNumber(percent)
	if err != nil {
		return 0, err
	}
	if line == 0 {
		return 0, errors.New("the link's speed is not known: give --line-rate, or a rate in frames per second")
	}
	return n / 100 * line, nil
}
