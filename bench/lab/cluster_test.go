package lab

import (
	"os"
	"testing"
	"time"

	"baton/control/config"
)

// TestGeneratedConfigurationsAreRight loads what a lab writes with the daemons' own strict reader.
func TestGeneratedConfigurationsAreRight(t *testing.T) {
	full := TwoSites()
	full.Device, full.Hugepages, full.Default = "net_af_packet", "never", "web-b"
	full.Request, full.Offer, full.Confirm, full.Linger = time.Second, 50*time.Millisecond, time.Second, time.Second
	full.Window, full.Freeze, full.Transfer, full.LogLevel = 16384, "discard", "unconditional", "info"
	full.Services = []Service{{110, "protocol: pop3\npop3: { default: web-a }"}, {4000, "protocol: raw\nraw: { default: web-b }"}}
	for name, c := range map[string]Cluster{"defaults": TwoSites(), "everything": full} {
		t.Run(name, func(t *testing.T) {
			l := &Lab{Dir: t.TempDir()}
			l.Client, l.Router = l.host("client", clientNumber), l.host("rh1", routerNumber)
			l.Targets = []*Host{l.host("t1", 21), l.host("t2", 22)}
			for _, h := range l.Hosts() {
				if err := os.MkdirAll(h.Dir(), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			b := &Baton{lab: l}
			if err := b.configure(c); err != nil {
				t.Fatal(err)
			}
			router, err := config.LoadRouter(l.Router.Config())
			if err != nil {
				t.Fatal(err)
			}
			port := router.DVIPAs[0].Ports[0]
			if len(port.HTTP.Rules) != len(c.Rules) || port.HTTP.Default != c.Default {
				t.Errorf("rules %v, default %q", port.HTTP.Rules, port.HTTP.Default)
			}
			ports := router.DVIPAs[0].Ports
			if len(ports) != 1+len(c.Services) || len(ports) > 1 && (ports[1].POP3.Default != "web-a" || ports[2].Port != 4000) {
				t.Errorf("ports %+v, want those of %+v behind the first", ports, c.Services)
			}
			for _, p := range ports {
				if c.Request != 0 && time.Duration(p.Timeouts.Request) != c.Request {
					t.Errorf("port %d: request timeout %v, want %v", p.Port, p.Timeouts.Request, c.Request)
				}
			}
			for i, job := range []string{"web-a", "web-b"} {
				target, err := config.LoadTarget(l.Targets[i].Config())
				if err != nil {
					t.Fatal(err)
				}
				if len(target.Jobs) != 1 || target.Jobs[0].Name != job {
					t.Errorf("%s serves %v, want %s", target.Host, target.Jobs, job)
				}
			}
		})
	}
}
