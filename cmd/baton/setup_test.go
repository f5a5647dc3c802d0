package main

import (
	"testing"

	"baton/control/config"
)

// A connection that has been greeted cannot come back to an application that greets.
func TestServiceKnowsWhoGreets(t *testing.T) {
	for protocol, want := range map[string]bool{"http": false, "redis": false, "pop3": true, "imap": true, "smtp": true} {
		s, err := routerService(&config.Router{}, servicePort{port: &config.Port{Protocol: protocol, Window: 32768}})
		if err != nil || s.Greets != want {
			t.Errorf("%s greets: %v (%v), want %v", protocol, s.Greets, err, want)
		}
	}
}
