package judge

import (
	"fmt"
	"io"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// WritePcapng writes the capture for people (Wireshark, tshark, tcpdump read it). Frame numbers are the judge's.
func WritePcapng(w io.Writer, c Capture) error {
	out, err := pcapgo.NewNgWriter(w, layers.LinkTypeEthernet)
	if err != nil {
		return fmt.Errorf("begin pcapng: %w", err)
	}
	for i, f := range c.Frames {
		info := gopacket.CaptureInfo{Timestamp: f.Time, CaptureLength: len(f.Data), Length: len(f.Data)}
		if err := out.WritePacket(info, f.Data); err != nil {
			return fmt.Errorf("write frame %d: %w", i+1, err)
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("end pcapng: %w", err)
	}
	return nil
}
