package app

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// pair returns both ends of a control socket.
func pair(t *testing.T) (application, daemon *Socket) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	application, err = Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	daemon = NewSocket(c)
	t.Cleanup(func() { application.Close(); daemon.Close() })
	return application, daemon
}

func TestStateArrivesAtEachSize(t *testing.T) {
	a, d := pair(t)
	for _, size := range []int{0, 1, MaxInline, MaxInline + 1, MaxState} {
		state := bytes.Repeat([]byte{0xff}, size)
		if err := a.Send(Message{Type: TypeTransfer, Conn: 7, State: state}); err != nil {
			t.Fatalf("%v: %v", size, err)
		}
		m, files, err := d.Receive()
		if err != nil || len(files) != 0 || len(m.Files) != 0 {
			t.Fatalf("%v: %v, %d files %v", size, err, len(files), m.Files)
		}
		if m.Conn != 7 || !bytes.Equal(m.State, state) {
			t.Errorf("%v: %d octets of state", size, len(m.State))
		}
	}
}

func TestFilesKeepTheirNames(t *testing.T) {
	a, d := pair(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	err = a.Send(Message{Type: TypeConnection, State: make([]byte, MaxState), Files: []string{FileConnection}}, w)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	m, files, err := d.Receive()
	if err != nil || len(files) != 1 || len(m.Files) != 1 || m.Files[0] != FileConnection || len(m.State) != MaxState {
		t.Fatalf("%v: %d files %v, %d octets of state", err, len(files), m.Files, len(m.State))
	}
	if _, err := files[0].WriteString("it is the pipe"); err != nil {
		t.Error(err)
	}
	files[0].Close()
	if b, err := io.ReadAll(r); string(b) != "it is the pipe" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestTooMuchIsNotSent(t *testing.T) {
	a, _ := pair(t)
	for name, m := range map[string]Message{
		"state":  {Type: TypeTransfer, State: make([]byte, MaxState+1)},
		"detail": {Type: TypeReject, Detail: string(make([]byte, MaxMessage))},
	} {
		if err := a.Send(m); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBadMessagesDoNotEndTheSocket sends what no application should, and then a good message.
func TestBadMessagesDoNotEndTheSocket(t *testing.T) {
	open, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	fd, err := unix.MemfdCreate("unsealed", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	unsealed := os.NewFile(uintptr(fd), "unsealed")
	defer unsealed.Close()
	for _, tt := range []struct {
		name, packet string
		files        []*os.File
		want         error
	}{
		{"no JSON", "hello", nil, ErrMalformed},
		{"no object", "[]", nil, ErrMalformed},
		{"no type", "{}", nil, ErrMalformed},
		{"wrong type of a field", `{"type":"accept","transfer":"x"}`, nil, ErrMalformed},
		{"no base64", `{"type":"transfer","state":"!"}`, nil, ErrMalformed},
		{"file without a name", `{"type":"give"}`, []*os.File{open}, ErrMalformed},
		{"name without a file", `{"type":"give","files":["socket"]}`, nil, ErrMalformed},
		{"state that is no memfd", `{"type":"transfer","files":["state"]}`, []*os.File{open}, ErrMalformed},
		{"state that may change", `{"type":"transfer","files":["state"]}`, []*os.File{unsealed}, ErrMalformed},
		{"too many files", `{"type":"give"}`, []*os.File{open, open, open, open, open, open}, ErrTooLarge},
		{"too long", `{"type":"` + string(make([]byte, MaxMessage)) + `"}`, nil, ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, d := pair(t)
			var oob []byte
			fds := make([]int, len(tt.files))
			for i, f := range tt.files {
				fds[i] = int(f.Fd())
			}
			if len(fds) > 0 {
				oob = unix.UnixRights(fds...)
			}
			if _, _, err := a.conn.WriteMsgUnix([]byte(tt.packet), oob, nil); err != nil {
				t.Fatal(err)
			}
			if _, _, err := d.Receive(); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if err := a.Send(Message{Type: TypeGetDPT}); err != nil {
				t.Fatal(err)
			}
			if m, _, err := d.Receive(); err != nil || m.Type != TypeGetDPT {
				t.Errorf("then %v, %v", m.Type, err)
			}
		})
	}
}

func TestEndIsEOF(t *testing.T) {
	a, d := pair(t)
	a.Close()
	if _, _, err := d.Receive(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func TestCredentialsAreTheKernels(t *testing.T) {
	_, d := pair(t)
	c, err := d.Credentials()
	if err != nil || int(c.Pid) != os.Getpid() || int(c.Uid) != os.Getuid() {
		t.Errorf("%+v, %v", c, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"type":"register","role":"router","service":"10.77.0.10:80"}`))
	f.Add([]byte(`{"type":"transfer","conn":1,"state":"AA==","files":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, files, err := parse(b, nil); err == nil && (m.Type == "" || len(files) != 0) {
			t.Errorf("%+v", m)
		}
	})
}
