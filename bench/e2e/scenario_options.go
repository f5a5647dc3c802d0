package main

import (
	"errors"
	"fmt"
	"os"

	"baton/bench/judge"
	"baton/bench/lab"
	"baton/fastpath/wire"
)

// optionSize is how much a client without an option downloads and uploads, octets: enough for many windows.
const optionSize = 2_000_000

var optionScenarios = []Scenario{
	withoutOption("no-timestamps", "net.ipv4.tcp_timestamps", func(o wire.Options) bool { return o.HasTimestamps }),
	withoutOption("no-sack", "net.ipv4.tcp_sack", func(o wire.Options) bool { return o.SACKPermitted }),
	withoutOption("no-window-scaling", "net.ipv4.tcp_window_scaling", func(o wire.Options) bool { return o.HasScale }),
}

// withoutOption makes the scenario of a client whose kernel does not offer a TCP option.
func withoutOption(name, sysctl string, has func(wire.Options) bool) Scenario {
	return Scenario{
		Name:   name,
		Doc:    "a client with " + sysctl + "=0 is served: a page, a download, an upload",
		Expect: Expect{Connections: 3, Transferred: 3},
		Run: func(e *Env) (err error) {
			restore, err := e.Client.SetSysctl(sysctl, "0")
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, restore()) }()
			return errors.Join(e.curls([]fetched{{"a.example", "/", "t1"}}), e.download(optionSize), e.upload(optionSize))
		},
		Check: func(_ *Env, r judge.Report) error {
			for _, c := range r.Conns {
				if has(c.Asked) || has(c.Answered) {
					return fmt.Errorf("%v: SYN offers %+v, SYN-ACK %+v", c, c.Asked, c.Answered)
				}
			}
			return nil
		},
	}
}

// download fetches a file of n octets through the DVIPA and compares it with the one on the target.
func (e *Env) download(n int64) error {
	file, err := e.Lab.File(n)
	if err != nil {
		return err
	}
	got, err := e.Curl("a.example", fmt.Sprintf("/static/data-%d", n))
	if err != nil {
		return err
	}
	if r := got.Response; r.StatusCode != 200 || *judge.DigestOf(r.Data) != *file {
		return fmt.Errorf("download: status %d, %v, want 200, %v", r.StatusCode, *judge.DigestOf(r.Data), *file)
	}
	return nil
}

// upload stores n octets at t1 through the DVIPA and compares the file there with what curl sent.
func (e *Env) upload(n int64) error {
	data := lab.Data(int(n))
	path := e.Client.Path("upload")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return err
	}
	name := fmt.Sprintf("/upload/data-%d", n)
	stored := e.Target(1).Path(name)
	if err := os.RemoveAll(stored); err != nil {
		return err
	}
	got, err := e.Curl("a.example", name, "--upload-file", path, "--header", "Expect:")
	if err != nil {
		return err
	}
	if got.Response.StatusCode != 201 {
		return fmt.Errorf("upload: status %d, want 201", got.Response.StatusCode)
	}
	file, err := lab.FileDigest(stored)
	if err != nil {
		return err
	}
	if *file != *judge.DigestOf(data) {
		return fmt.Errorf("upload: the target stored %v, curl sent %v", *file, *judge.DigestOf(data))
	}
	return nil
}
