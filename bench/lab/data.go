package lab

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"fmt"
	"io"
	"os"

	"baton/bench/judge"
)

// Data returns n octets that look random and are always the same (AES-CTR with a zero key).
func Data(n int) []byte {
	out := make([]byte, n)
	keystream().XORKeyStream(out, out)
	return out
}

func keystream() cipher.Stream {
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		panic(err) // the key's length is right
	}
	return cipher.NewCTR(block, make([]byte, aes.BlockSize))
}

// File makes the first n octets of Data as the file "/static/data-N" of every target's web server, once, and returns
// their digest.
func (l *Lab) File(n int64) (*judge.Digest, error) {
	if d := l.files[n]; d != nil {
		return d, nil
	}
	name := l.Path("static", fmt.Sprintf("data-%d", n))
	if err := os.MkdirAll(l.Path("static"), 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, sum), 1<<20)
	_, err = io.CopyN(w, cipher.StreamReader{S: keystream(), R: zeros{}}, n)
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("make %s: %w", name, err)
	}
	l.files[n] = &judge.Digest{Octets: n, SHA256: [32]byte(sum.Sum(nil))}
	return l.files[n], f.Close()
}

// zeros reads as zero octets without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// FileDigest returns the digest of a file.
func FileDigest(path string) (*judge.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	sum := sha256.New()
	n, err := io.Copy(sum, f)
	return &judge.Digest{Octets: n, SHA256: [32]byte(sum.Sum(nil))}, err
}
