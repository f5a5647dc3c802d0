package config

import (
	"strings"
	"testing"
)

func TestAnnouncedMSSLeavesRoomForTunnels(t *testing.T) {
	const gateway = ", via: 10.77.0.254 }"
	tests := []struct {
		name, t1, t2 string // t2 has web-b, which is the default
		dvipa        string
		want         uint16
	}{
		{"no tunnel", "{ address: 10.77.0.21 }", "{ address: 10.77.0.22 }", "", 1460},
		{"IPIP", "{ address: 10.77.0.21 }", "{ address: 10.79.0.22, tunnel: ipip" + gateway, "", 1440},
		{"GUE", "{ address: 10.77.0.21 }", "{ address: 10.79.0.22, tunnel: gue" + gateway, "", 1428},
		{"GUE, by a rule only", "{ address: 10.79.0.21, tunnel: gue" + gateway, "{ address: 10.77.0.22 }", "", 1428},
		{"the smallest of two", "{ address: 10.79.0.21, tunnel: gue, mtu: 1400" + gateway,
			"{ address: 10.79.0.22, tunnel: ipip" + gateway, "", 1328},
		{"a large path", "{ address: 10.77.0.21 }", "{ address: 10.79.0.22, tunnel: gue, mtu: 9000" + gateway, "", 1460},
		{"IPv6 inside", "{ address: 10.77.0.21 }", "{ address: 10.79.0.22, tunnel: gue" + gateway, `"2001:db8::10"`, 1408},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := readFile(t, "testdata/router.yaml")
			text = strings.Replace(text, "{ address: 10.77.0.21 }", tt.t1, 1)
			text = strings.Replace(text, "{ address: 10.77.0.22 }", tt.t2, 1)
			if tt.dvipa != "" {
				text = strings.Replace(text, "- address: 10.77.0.10\n", "- address: "+tt.dvipa+"\n", 1)
			}
			r, err := parseRouter("baton.yaml", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			if got := r.AnnouncedMSS(r.DVIPAs[0], &r.DVIPAs[0].Ports[0]); got != tt.want {
				t.Errorf("announces %d, want %d", got, tt.want)
			}
		})
	}
}

func TestTunnelsOfIPv6NeedItsSmallestMTU(t *testing.T) {
	text := readFile(t, "testdata/router.yaml")
	text = strings.Replace(text, "- address: 10.77.0.10\n", "- address: \"2001:db8::10\"\n", 1)
	text = strings.Replace(text, "{ address: 10.77.0.22 }", "{ address: 10.77.0.22, tunnel: gue, mtu: 1311 }", 1)
	_, err := parseRouter("baton.yaml", []byte(text))
	if err == nil || !strings.Contains(err.Error(), "want at least 1312") {
		t.Errorf("error %v, want the least MTU", err)
	}
}
