package config

import (
	"net/netip"
	"path/filepath"
)

// UserTarget is the configuration of a target host whose `baton` continues connections in userspace, on a data port of
// its own.
type UserTarget struct {
	Role    string        `yaml:"role" oneof:"target"`
	Host    string        `yaml:"host"` // name in its certificate
	Data    Data          `yaml:"data"`
	Gateway netip.Addr    `yaml:"gateway" default:""` // next hop to clients on no port's network; the zero Addr: there are none
	XCF     TargetXCF     `yaml:"xcf"`
	Jobs    []UserJob     `yaml:"jobs"`
	Apps    TargetApps    `yaml:"applications"`
	Limits  UserLimits    `yaml:"limits"`
	Admin   TargetAdmin   `yaml:"admin"`
	Metrics TargetMetrics `yaml:"metrics"`
	Log     Log           `yaml:"log"`

	report *report
}

// UserJob is a job that this host serves, and the socket of the application that does it.
type UserJob struct {
	Name          string     `yaml:"name"`
	Address       netip.Addr `yaml:"address"` // DVIPA
	Port          uint16     `yaml:"port" range:"1..65535"`
	Socket        string     `yaml:"socket"` // path of a Unix socket, or a loopback address and port
	ProxyProtocol Switch     `yaml:"proxy_protocol" default:"false"`
	Application   string     `yaml:"application" default:"conventional" oneof:"conventional|ask"` // as TargetJob's
}

// Asks says that the job's applications are asked.
func (j *UserJob) Asks() bool { return j.Application == "ask" }

// Network is the network of the job's socket, as package net names it.
func (j UserJob) Network() string {
	if filepath.IsAbs(j.Socket) {
		return "unix"
	}
	return "tcp"
}

// UserLimits bound what the host takes.
type UserLimits struct {
	Reservations int      `yaml:"reservations" default:"4096" range:"1..1048576"`
	BacklogRetry Duration `yaml:"backlog_retry" default:"100ms" range:"1ms..10s"`
	Connections  int      `yaml:"connections" default:"65536" range:"16..1048576"`
	Window       uint32   `yaml:"window" default:"262144" range:"65535..262144"` // of a connection, octets
}

// Warnings returns what the file may say and probably does not mean, in the order of the file.
func (t *UserTarget) Warnings() []*Problem { return t.report.warnings }

// CheckFiles returns a Problem for each file that the configuration names and that cannot be read.
func (t *UserTarget) CheckFiles() error {
	return t.report.checkFiles(map[string]string{"xcf.ca": t.XCF.CA, "xcf.cert": t.XCF.Cert, "xcf.key": t.XCF.Key})
}
