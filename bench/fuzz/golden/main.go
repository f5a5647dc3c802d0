// Golden writes the scripts that the fuzzing of the data path (bench/fuzz/pipeline.c) begins with: a connection's life
// in each of its forms, so that the fuzzer need not find them.
//
//	golden DIR
//
// A script is an octet that chooses the number of shards, then steps; see pipeline.c.
package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"baton/cgo"
	"baton/fastpath/wire"
)

// script is what a fuzzer's input consists of.
type script []byte

// The steps, in the order of pipeline.c.
const (
	stepRaw = iota
	stepFixed
	stepSYN
	stepSegment
	stepError
	stepCommand
	stepTime
)

// Bits that bend a frame, and what else each takes from the script.
const (
	port1     = 1
	extended  = 2  // IPv6: kind of the header
	changed   = 4  // place, and what is XORed to it
	cut       = 16 // by an octet
	inPieces  = 32 // order
	wrongVLAN = 64
)

// Clients 0, 2 ... have IPv4 addresses, 1, 3 ... IPv6. Services, for IPv4:
const (
	plain        = 0 // also the only one for IPv6
	speaksFirst  = 2
	conventional = 3
	adopting     = 4
)

func (s script) syn(client, service byte, bend ...byte) script {
	return append(append(s, stepSYN, client, service), orPlain(bend)...)
}

// segment sends a segment at an offset of the client's stream, with 6 x size octets.
func (s script) segment(client, offset byte, flags wire.Flags, size byte, bend ...byte) script {
	return append(append(s, stepSegment, client, offset, byte(flags), size), orPlain(bend)...)
}

// orPlain is how a frame is bent: not at all, if nothing is said.
func orPlain(bend []byte) []byte {
	if len(bend) == 0 {
		return []byte{0}
	}
	return bend
}

// open is a handshake and the first data.
func (s script) open(client, service byte, bend ...byte) script {
	return s.syn(client, service, bend...).segment(client, 0, wire.ACK, 0, bend...).
		segment(client, 0, wire.ACK|wire.PSH, 10, bend...)
}

// icmp sends an error that quotes so many octets.
func (s script) icmp(client, quoted, kind, code, mtu byte) script {
	return append(s, stepError, client, quoted, kind, code, mtu, 0)
}

// command gives a command about the newest of at most one flow, and a client's tuple.
func (s script) command(kind, client, owner, discard byte) script {
	return append(s, stepCommand, kind-1, client, 0, owner-1, discard)
}

// wait lets so many times 50 ms pass; from 128 on, times 2 s.
func (s script) wait(n byte) script { return append(s, stepTime, n) }

// frame puts a frame into port 0 as it is; fixed, with right lengths and checksums.
func (s script) frame(frame []byte) script {
	return append(append(s, stepRaw, 0, byte(len(frame))), frame...)
}

func (s script) fixed(frame []byte) script {
	return append(append(s, stepFixed, 0, byte(len(frame))), frame...)
}

// transfer hands the first flow to an owner, with a segment that comes meanwhile.
func (s script) transfer(client, owner, discard byte) script {
	return s.command(cgo.Freeze, client, owner, discard).segment(client, 60, wire.ACK, 1).
		command(cgo.Switch, client, owner, discard).segment(client, 66, wire.ACK, 1)
}

var (
	clientMAC = wire.MAC{2, 0xc1, 0, 0, 0, 1}
	portMAC   = wire.MAC{2, 0xba, 0x70}
	client4   = netip.MustParseAddr("10.77.0.100")
	client6   = netip.MustParseAddr("2001:db8:77::65")
	own4      = netip.MustParseAddr("10.77.0.1")
	dvipa6    = netip.MustParseAddr("2001:db8:77::a")
)

// scripts makes all of them, by name.
func scripts() map[string]script {
	all := map[string]script{}
	for client, family := range []string{"ipv4", "ipv6"} {
		client := byte(client)
		for owner, name := range []string{1: "l2", 2: "vlan", 3: "ipip", 4: "gue", 5: "unknown"} {
			if owner > 0 {
				all[family+"-transfer-"+name] = script{0}.open(client, plain).transfer(client, byte(owner), 0).
					icmp(client, 60, 3, 4, 60).segment(client, 72, wire.FIN|wire.ACK, 0).
					command(cgo.Remove, client, byte(owner), 0).wait(128+2).segment(client, 72, wire.ACK, 0)
			}
		}
		all[family+"-discard-thaw"] = script{0}.open(client, plain).command(cgo.Freeze, client, 1, 1).
			segment(client, 60, wire.ACK, 1).command(cgo.Thaw, client, 1, 0).command(cgo.Freeze, client, 1, 0).
			segment(client, 60, wire.ACK, 1).command(cgo.Thaw, client, 1, 0)
		all[family+"-icmp-router"] = script{0}.open(client, plain).icmp(client, 28+20*client, 3-client, 4-4*client, 60).
			icmp(client, 27, 11, 0, 0).icmp(client, 60, 3, 1, 0)
		all[family+"-pieces-router"] = script{0}.open(client, plain).
			segment(client, 60, wire.ACK, 100, inPieces, 0).segment(client, 60, wire.ACK, 100, inPieces, 128).
			segment(client, 60, wire.ACK, 100, inPieces, 2).wait(120)
		all[family+"-pieces-target"] = script{0}.open(client, plain).transfer(client, 1, 0).
			segment(client, 72, wire.ACK, 100, inPieces, 0).segment(client, 72, wire.ACK, 100, inPieces, 1)
		all[family+"-pieces-first"] = script{0}.syn(client, plain).segment(client, 0, wire.ACK, 100, inPieces, 0)
		all[family+"-extended"] = script{0}.open(client, plain, extended, 0).open(client, plain, extended, 1).
			open(client, plain, extended, 2).open(client, plain, extended, 3).
			segment(client, 60, wire.ACK, 100, extended|inPieces, 3, 0)
		all[family+"-vlan"] = script{0}.open(client, plain, port1).segment(client, 60, wire.ACK, 1, port1|wrongVLAN).
			segment(client, 60, wire.ACK, 1, wrongVLAN)
		all[family+"-bent"] = script{0}.open(client, plain).segment(client, 60, wire.ACK, 1, changed, 25, 1).
			segment(client, 60, wire.ACK, 1, cut, 9).syn(client, plain, changed, 47, 1)
		all[family+"-restore"] = script{0}.syn(client, plain).segment(client, 0, wire.RST, 0).
			command(cgo.Restore, client, 1, 0).segment(client, 0, wire.ACK, 1)
		all[family+"-idle"] = script{0}.syn(client, plain).segment(client, 0, wire.ACK, 0).wait(60).
			segment(client, 0xff, wire.ACK, 0).wait(128+4).segment(client, 0, wire.ACK, 1)
		all[family+"-again"] = script{0}.open(client, plain).transfer(client, 1, 0).open(client, plain).
			segment(client, 0, wire.RST, 0)
	}
	all["speaks-first"] = script{0}.syn(0, speaksFirst).wait(30).segment(0, 0, wire.ACK, 0).
		segment(0, 0, wire.ACK, 1).syn(2, speaksFirst).segment(2, 0, wire.RST, 0)
	all["conventional"] = script{0}.open(0, conventional).segment(0, 60, wire.FIN|wire.ACK, 0).open(2, conventional).
		syn(0, conventional).segment(2, 0, wire.RST, 0).segment(4, 0, wire.ACK, 0).wait(128 + 60)
	all["adopted"] = script{0}.syn(0, adopting).command(cgo.Adopt, 0, 1, 0).segment(0, 0, wire.ACK, 1).
		icmp(0, 28, 3, 4, 60).command(cgo.Close, 0, 1, 0)
	all["commands"] = script{0}.command(cgo.Transmit, 0, 1, 0).command(cgo.SetOwner, 0, 1, 0).
		command(cgo.Serve, 0, 5, 1).open(0, plain).command(cgo.Serve, 0, 5, 0).open(0, plain)
	all["neighbours"] = neighbours()
	for name, s := range all {
		if s[0] == 0 {
			all["shards-"+name] = append(script{1}, s[1:]...)
		}
	}
	return all
}

// neighbours has ARP, neighbour discovery and echo.
func neighbours() script {
	ask := wire.ARP{Op: wire.ARPRequest, SenderMAC: clientMAC, SenderIP: client4, TargetIP: own4}
	answer := wire.ARP{Op: wire.ARPReply, SenderMAC: clientMAC, SenderIP: client4, TargetMAC: portMAC, TargetIP: own4}
	echo4 := wire.AppendICMPError(nil, wire.Link{Dst: portMAC, Src: clientMAC}, client4,
		wire.ICMPError{Type: 8, Tuple: wire.Tuple{Service: netip.AddrPortFrom(own4, 0)}}, make([]byte, 32))
	echo6 := wire.AppendICMPError(nil, wire.Link{Dst: portMAC, Src: clientMAC}, client6,
		wire.ICMPError{Type: 128, Tuple: wire.Tuple{Service: netip.AddrPortFrom(dvipa6, 0)}}, make([]byte, 32))
	advertise := wire.NDP{Link: wire.Link{Dst: portMAC, Src: clientMAC}, Type: wire.NDPAdvertisement, Src: client6,
		Dst: dvipa6, Target: client6, MAC: clientMAC, HasMAC: true}
	return script{0}.frame(wire.AppendARP(nil, ask)).frame(wire.AppendARP(nil, answer)).
		fixed(echo4).fixed(echo6).frame(wire.AppendNDP(nil, wire.Solicit(clientMAC, client6, dvipa6))).
		frame(wire.AppendNDP(nil, advertise))
}

// write makes a file of each script.
func write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, s := range scripts() {
		if err := os.WriteFile(filepath.Join(dir, name), s, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: golden DIR")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "golden:", err)
		os.Exit(1)
	}
}
