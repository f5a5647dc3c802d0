package config

import "baton/control/password"

// Passwords says who knows the passwords of clients that log in, and are then checked before their connections go on. With
// neither File nor HTTP nobody is asked.
type Passwords struct {
	File     string   `yaml:"file" default:""` // of hashes
	HTTP     string   `yaml:"http" default:""` // URL of a service
	Timeout  Duration `yaml:"timeout" default:"3s" range:"10ms..1m"`
	Attempts int      `yaml:"attempts" default:"3" range:"1..10"` // of one connection
	Delay    Duration `yaml:"delay" default:"2s" range:"0s..1m"`  // of the answer to a wrong one
	Parallel int      `yaml:"parallel" default:"4" range:"1..256"`
}

// Given says that somebody is asked.
func (p *Passwords) Given() bool { return p != nil && (p.File != "" || p.HTTP != "") }

// attempts is how many passwords of a connection are checked.
func (p *Passwords) attempts() int {
	if !p.Given() {
		return 0
	}
	return p.Attempts
}

// Passwords are those of the port's protocol, nil if it has none.
func (p *Port) Passwords() *Passwords {
	return map[string]*Passwords{"pop3": &p.POP3.Passwords, "imap": &p.IMAP.Passwords, "smtp": &p.SMTP.Passwords}[p.Protocol]
}

// checkPasswords checks what a port says of passwords.
func (p *Port) checkPasswords(to *report, key string) {
	w := p.Passwords()
	_, present := to.places[key]
	switch {
	case w == nil || !present:
		return
	case !w.Given():
		to.failf(key, "nobody to ask: want file: or http:")
	case w.File != "" && w.HTTP != "":
		to.failf(key+".http", "there is a file already: one of them knows the passwords")
	case w.HTTP != "":
		if err := password.CheckURL(w.HTTP); err != nil {
			to.failf(key+".http", "%v", err)
		}
	}
	if w.Timeout+w.Delay >= p.Timeouts.Request {
		to.failf(key+".timeout", "%s and the delay, %s, are not below timeouts.request, %s: clients would be refused before the answer",
			w.Timeout, w.Delay, p.Timeouts.Request)
	}
	if p.Protocol == "smtp" && !p.SMTP.Auth {
		to.failf(key, "nobody can log in: set auth: true, or leave it out")
	}
}
