package transfer

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"reflect"
	"testing"

	"baton/fastpath/wire"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

var (
	incA = wire.Incarnation{
		Tuple: wire.Tuple{Client: ap("10.77.0.100:40000"), Service: ap("10.77.0.10:80")}, IRS: 1000, ISS: 5000,
	}
	incB = wire.Incarnation{Tuple: incA.Tuple, IRS: 700_000, ISS: 900_000} // a later life of the same tuple
)

// fullRecord has every field set to something of its own.
func fullRecord() Record {
	return Record{
		Epoch: 0x0102030405060708, Inc: incA, Job: "web-a", Hops: 2,
		Handshake: wire.Handshake{MSS: 1460, OwnMSS: 1400, SndScale: 7, RcvScale: 8,
			Scaling: true, SACK: true, Timestamps: true},
		ReadFrom: 1001, RcvNxt: 1006, RcvAcked: 1001, RcvEdge: 1001 + 32768, FIN: true, Data: []byte("GET "),
		SndUna: 5001, SndNxt: 5004, SndWnd: 64256, SndWL1: 1001, SndWL2: 5002, SendData: []byte("abc"),
		TSOffset: 11, TSLast: 12, TSRecent: 13, AppState: []byte{1, 2, 3, 4, 5, 6},
	}
}

func v6Record() Record {
	r := fullRecord()
	r.Inc.Client, r.Inc.Service = ap("[fd00::64]:40000"), ap("[fd00::a]:80")
	return r
}

// bareRecord is an IPv4 connection that has not said anything.
func bareRecord() Record {
	return Record{Inc: incA, ReadFrom: 1001, RcvNxt: 1001, RcvAcked: 1001, RcvEdge: 1001, SndUna: 5001, SndNxt: 5001}
}

func mustEncode(t testing.TB, r Record) []byte {
	t.Helper()
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecodeReversesEncode(t *testing.T) {
	wrapped := fullRecord()
	wrapped.ReadFrom, wrapped.RcvNxt, wrapped.RcvAcked, wrapped.RcvEdge = 0xfffffffe, 3, 2, 0x8000
	records := map[string]Record{"full": fullRecord(), "v6": v6Record(), "bare": bareRecord(), "wrapped": wrapped}
	for name, r := range records {
		got, err := Decode(mustEncode(t, r))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !reflect.DeepEqual(got, r) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, r)
		}
	}
}

// TestFormatStaysAsItIs: hosts of different age read each other's version 1.
func TestFormatStaysAsItIs(t *testing.T) {
	const want = "0001" + "0f" + "02" + "0102030405060708" + "000003e8" + "00001388" + "9c40" + "0050" + "05b4" + "0578" +
		"07" + "08" + "05" + "00" + "000003e9" + "000003ee" + "000003e9" + "000083e9" + "00001389" + "0000138c" + "0000fb00" + "000003e9" +
		"0000138a" + "0000000b" + "0000000c" + "0000000d" + "00000004" + "00000003" + "00000006" +
		"0a4d0064" + "0a4d000a" + "7765622d61" + "47455420" + "616263" + "010203040506"
	if got := hex.EncodeToString(mustEncode(t, fullRecord())); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestEveryFieldIsInTheEncoding: a record that differs in any field has other octets.
func TestEveryFieldIsInTheEncoding(t *testing.T) {
	changes := map[string]func(*Record){
		"Epoch":      func(r *Record) { r.Epoch++ },
		"Client":     func(r *Record) { r.Inc.Client = ap("10.77.0.101:40000") },
		"ClientPort": func(r *Record) { r.Inc.Client = ap("10.77.0.100:40001") },
		"Service":    func(r *Record) { r.Inc.Service = ap("10.77.0.11:80") },
		"IRS":        func(r *Record) { r.Inc.IRS++ },
		"ISS":        func(r *Record) { r.Inc.ISS++ },
		"MSS":        func(r *Record) { r.Handshake.MSS++ },
		"OwnMSS":     func(r *Record) { r.Handshake.OwnMSS++ },
		"SndScale":   func(r *Record) { r.Handshake.SndScale++ },
		"RcvScale":   func(r *Record) { r.Handshake.RcvScale++ },
		"Scaling":    func(r *Record) { r.Handshake.Scaling, r.Handshake.SndScale, r.Handshake.RcvScale = false, 0, 0 },
		"SACK":       func(r *Record) { r.Handshake.SACK = false },
		"Timestamps": func(r *Record) { r.Handshake.Timestamps = false },
		"Job":        func(r *Record) { r.Job = "web-b" },
		"Hops":       func(r *Record) { r.Hops++ },
		"ReadFrom":   func(r *Record) { r.ReadFrom++; r.RcvNxt++ },
		"RcvAcked":   func(r *Record) { r.RcvAcked++ },
		"RcvEdge":    func(r *Record) { r.RcvEdge++ },
		"FIN":        func(r *Record) { r.FIN = false; r.RcvNxt-- },
		"Data":       func(r *Record) { r.Data = []byte("PUT ") },
		"SndUna":     func(r *Record) { r.SndUna++ },
		"SndNxt":     func(r *Record) { r.SndNxt++ },
		"SndWnd":     func(r *Record) { r.SndWnd++ },
		"SndWL1":     func(r *Record) { r.SndWL1++ },
		"SndWL2":     func(r *Record) { r.SndWL2++ },
		"SendData":   func(r *Record) { r.SendData = []byte("abcd") },
		"TSOffset":   func(r *Record) { r.TSOffset++ },
		"TSLast":     func(r *Record) { r.TSLast++ },
		"TSRecent":   func(r *Record) { r.TSRecent++ },
		"AppState":   func(r *Record) { r.AppState = nil },
	}
	seen := map[string]string{string(mustEncode(t, fullRecord())): "unchanged"}
	for name, change := range changes {
		r := fullRecord()
		change(&r)
		b := string(mustEncode(t, r))
		if other, double := seen[b]; double {
			t.Errorf("%s is encoded as %s", name, other)
		}
		seen[b] = name
	}
}

func TestContradictoryRecordIsNotEncoded(t *testing.T) {
	rows := map[string]func(*Record){
		"no address":            func(r *Record) { r.Inc.Client = netip.AddrPort{} },
		"mapped address":        func(r *Record) { r.Inc.Client = ap("[::ffff:10.0.0.1]:1") },
		"zone":                  func(r *Record) { r.Inc.Client, r.Inc.Service = ap("[fe80::1%eth0]:1"), ap("[fe80::2]:1") },
		"two families":          func(r *Record) { r.Inc.Client = ap("[fd00::1]:1") },
		"long job":              func(r *Record) { r.Job = string(make([]byte, MaxJob+1)) },
		"much data":             func(r *Record) { r.Data = make([]byte, MaxData+1) },
		"much to send":          func(r *Record) { r.SendData = make([]byte, MaxSendData+1) },
		"large state":           func(r *Record) { r.AppState = make([]byte, MaxAppState+1) },
		"scale":                 func(r *Record) { r.Handshake.RcvScale = 15 },
		"scale without scaling": func(r *Record) { r.Handshake.Scaling = false },
		"RCV.NXT":               func(r *Record) { r.RcvNxt++ },
		"ACK ahead":             func(r *Record) { r.RcvAcked = r.RcvNxt + 1 },
		"edge behind":           func(r *Record) { r.RcvEdge = r.ReadFrom },
		"SND.UNA ahead":         func(r *Record) { r.SndUna = r.SndNxt + 1 },
	}
	for name, change := range rows {
		r := fullRecord()
		change(&r)
		if _, err := r.Encode(); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v, want ErrRecord", name, err)
		}
	}
}

func TestLargestRecordFits(t *testing.T) {
	r := v6Record()
	r.Job = string(bytes.Repeat([]byte{'j'}, MaxJob))
	r.Data, r.SendData, r.AppState = make([]byte, MaxData), make([]byte, MaxSendData), make([]byte, MaxAppState)
	r.RcvNxt, r.RcvEdge = r.ReadFrom.Add(MaxData+1), r.ReadFrom.Add(MaxData)
	if _, err := Decode(mustEncode(t, r)); err != nil {
		t.Error(err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := mustEncode(t, fullRecord())
	change := func(at int, to byte) []byte {
		b := bytes.Clone(good)
		b[at] = to
		return b
	}
	rows := []struct {
		name string
		b    []byte
		want error
	}{
		{"nothing", nil, ErrRecord},
		{"one octet", good[:1], ErrRecord},
		{"version 2, of any length", []byte{0, 2}, ErrVersion},
		{"version 0", change(1, 0), ErrVersion},
		{"fixed part cut", good[:fixedLen-1], ErrRecord},
		{"an octet less", good[:len(good)-1], ErrRecord},
		{"an octet more", append(bytes.Clone(good), 0), ErrRecord},
		{"unknown flag", change(offFlags, good[offFlags]|0x80), ErrRecord},
		{"zero octet", change(offZero, 1), ErrRecord},
		{"4 GiB of data", change(offDataLen, 0xff), ErrRecord},
		{"data length moved into send data", func() []byte {
			b := change(offDataLen+3, 3)
			b[offSendLen+3] = 4
			return b
		}(), ErrRecord},
		{"mapped address", func() []byte {
			b := mustEncode(t, v6Record())
			copy(b[fixedLen:], append(make([]byte, 10), 0xff, 0xff))
			return b
		}(), ErrRecord},
	}
	for _, row := range rows {
		if _, err := Decode(row.b); !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", row.name, err, row.want)
		}
	}
}

// FuzzDecode: any octets are refused or are exactly what their record encodes to, without a copy of what they claim.
func FuzzDecode(f *testing.F) {
	for _, r := range []Record{fullRecord(), v6Record(), bareRecord()} {
		f.Add(mustEncode(f, r))
	}
	f.Add([]byte{0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrRecord) && !errors.Is(err, ErrVersion) {
				t.Fatalf("error %v", err)
			}
			return
		}
		if again := mustEncode(t, r); !bytes.Equal(again, b) {
			t.Fatalf("decoded %x, encodes to %x", b, again)
		}
	})
}

// FuzzEncode: decode(encode(r)) is r, for records made from whatever the fuzzer finds.
func FuzzEncode(f *testing.F) {
	f.Add(uint64(1), "web-a", []byte("GET / HTTP/1.1\r\n"), []byte{}, []byte("state"), uint32(1000), uint8(7), true)
	f.Fuzz(func(t *testing.T, epoch uint64, job string, data, send, state []byte, start uint32, scale uint8, fin bool) {
		r := fullRecord()
		r.Epoch, r.Job, r.FIN = epoch, job, fin
		r.Data, r.SendData, r.AppState = nilIfEmpty(data), nilIfEmpty(send), nilIfEmpty(state)
		r.Handshake.SndScale = scale
		r.ReadFrom = r.ReadFrom.Add(int(start))
		end := r.ReadFrom.Add(len(data))
		r.RcvAcked, r.RcvEdge, r.RcvNxt = r.ReadFrom, end, end
		if fin {
			r.RcvNxt++
		}
		b, err := r.Encode()
		if err != nil {
			return
		}
		got, err := Decode(b)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Fatalf("got %+v, %v\nwant %+v", got, err, r)
		}
	})
}

func nilIfEmpty(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}
