package xcf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
)

// MaxMessage is the largest Envelope, octets: a record with the largest application state (1 MiB) and data fits.
const MaxMessage = 3 << 19

// lengthSize is the size of the length in front of an Envelope, octets.
const lengthSize = 4

// keptBuffer is the largest buffer that is kept for the next message, octets; most messages are below 1 KiB.
const keptBuffer = 128 << 10

// Errors of framing.
var (
	// ErrOversize is returned for a message longer than MaxMessage.
	ErrOversize = errors.New("message is too long")
	// ErrGarbage is returned for octets that are no Envelope.
	ErrGarbage = errors.New("no XCF message")
)

// appendFrame appends length and encoding of e to dst. On error dst is returned as it was.
func appendFrame(dst []byte, e *Envelope) ([]byte, error) {
	begin := len(dst)
	framed, err := proto.MarshalOptions{}.MarshalAppend(append(dst, 0, 0, 0, 0), e)
	if err != nil {
		return dst, fmt.Errorf("encode: %w", err)
	}
	n := len(framed) - begin - lengthSize
	if n > MaxMessage {
		return dst, fmt.Errorf("%w: %d octets, at most %d", ErrOversize, n, MaxMessage)
	}
	binary.BigEndian.PutUint32(framed[begin:], uint32(n))
	return framed, nil
}

// frameReader reads messages of a stream, with one buffer for all of them.
type frameReader struct {
	r   *bufio.Reader
	buf []byte
}

func newFrameReader(r io.Reader) *frameReader { return &frameReader{r: bufio.NewReaderSize(r, 16<<10)} }

// next returns the next message and its size on the stream, octets. io.EOF means that the peer closed the stream
// between two messages.
func (f *frameReader) next() (*Envelope, int, error) {
	var length [lengthSize]byte
	if _, err := io.ReadFull(f.r, length[:]); err != nil {
		return nil, 0, err
	}
	n := int(binary.BigEndian.Uint32(length[:]))
	if n > MaxMessage {
		return nil, 0, fmt.Errorf("%w: %d octets, at most %d", ErrOversize, n, MaxMessage)
	}
	body, err := f.body(n)
	if err != nil {
		return nil, 0, err
	}
	e := new(Envelope)
	if err := proto.Unmarshal(body, e); err != nil { // copies what it keeps
		return nil, 0, fmt.Errorf("%w: %w", ErrGarbage, err)
	}
	return e, lengthSize + n, nil
}

// body reads n octets. A length alone does not make it allocate more than the largest buffer it would keep: beyond that
// memory grows with what really arrives.
func (f *frameReader) body(n int) ([]byte, error) {
	if cap(f.buf) > keptBuffer {
		f.buf = nil
	}
	have := 0
	for have < n {
		want := min(n, max(2*have, keptBuffer))
		if cap(f.buf) < want {
			f.buf = append(make([]byte, 0, want), f.buf[:have]...)
		}
		f.buf = f.buf[:want]
		if _, err := io.ReadFull(f.r, f.buf[have:want]); err != nil {
			return nil, noEOF(err)
		}
		have = want
	}
	return f.buf[:n], nil
}

// noEOF makes io.EOF an error where the stream may not end.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
