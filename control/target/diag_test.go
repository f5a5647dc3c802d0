package target

import (
	"encoding/binary"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"baton/fastpath/wire"
)

// message is a netlink message of the kernel.
func message(kind uint16, body []byte) []byte {
	b := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	binary.NativeEndian.PutUint32(b, uint32(unix.SizeofNlMsghdr+len(body)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	return append(b, body...)
}

// socketMessage is a struct inet_diag_msg without attributes.
func socketMessage(state SocketState, t wire.Tuple) []byte {
	body := make([]byte, diagMessageLen)
	body[0] = family(t.Service.Addr())
	body[msgState] = byte(state)
	id := body[msgSockid:]
	putEndpoint(id, id[sockidSrc:], t.Service)
	putEndpoint(id[sockidDstPort:], id[sockidDst:], t.Client)
	return body
}

func TestMessagesAreParsed(t *testing.T) {
	tuples := []wire.Tuple{{Client: client4, Service: service4}, {Client: client6, Service: service6}}
	var datagram []byte
	for _, tuple := range tuples {
		datagram = append(datagram, message(sockDiagByFamily, socketMessage(FinWait2, tuple))...)
	}
	datagram = append(datagram, message(unix.NLMSG_DONE, make([]byte, 4))...)
	var got []Socket
	done, err := eachMessage(datagram, func(s Socket) { got = append(got, s) })
	if err != nil || !done || len(got) != 2 {
		t.Fatalf("%d sockets, done %v (%v)", len(got), done, err)
	}
	for i, s := range got {
		if s.Tuple != tuples[i] || s.State != FinWait2 {
			t.Errorf("socket %+v, want %v in FIN-WAIT-2", s, tuples[i])
		}
	}
}

func TestKernelErrorsAreErrors(t *testing.T) {
	body := make([]byte, 4)
	code := -int32(unix.ENOENT)
	binary.NativeEndian.PutUint32(body, uint32(code))
	if _, err := eachMessage(message(unix.NLMSG_ERROR, body), func(Socket) {}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("error %v, want ENOENT", err)
	}
}

// Whatever the kernel might send, parsing it ends, without a panic.
func FuzzMessages(f *testing.F) {
	f.Add(message(sockDiagByFamily, socketMessage(Listen, wire.Tuple{Client: client4, Service: service4})))
	f.Add(message(sockDiagByFamily, append(socketMessage(Established, wire.Tuple{Client: client6, Service: service6}),
		12, 0, diagULPInfo, 0, 8, 0, ulpInfoName, 0, 'm', 'p', 't', 'c')))
	f.Add(message(unix.NLMSG_ERROR, []byte{1}))
	f.Add([]byte{16, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, datagram []byte) {
		_, _ = eachMessage(datagram, func(Socket) {})
	})
}
