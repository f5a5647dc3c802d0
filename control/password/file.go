package password

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/go-crypt/crypt"
	"github.com/go-crypt/crypt/algorithm"
	"github.com/go-crypt/crypt/algorithm/bcrypt"
	"github.com/go-crypt/crypt/algorithm/shacrypt"

	"baton/control/inspect"
)

// MaxFile bounds a file of hashes, octets.
const MaxFile = 64 << 20

// Errors of files. They do not have the hash.
var (
	ErrSyntax = errors.New("bad line of a password file")
	ErrHash   = errors.New("bad hash")
	ErrSize   = errors.New("password file too large")
)

// table has what a file says.
type table struct {
	hashes map[string]algorithm.Digest // by user
	all    []algorithm.Digest          // in the order of the file
	seed   maphash.Seed
}

// parse reads a file. The error, ErrSyntax or ErrHash, names file and line.
func parse(name string, data []byte) (*table, error) {
	decoder := crypt.NewDecoder()
	if err := errors.Join(bcrypt.RegisterDecoderStandard(decoder), shacrypt.RegisterDecoder(decoder)); err != nil {
		return nil, err
	}
	t := &table{hashes: map[string]algorithm.Digest{}, seed: maphash.MakeSeed()}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, MaxFile+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimRight(lines.Text(), "\r")
		if line == "" || line[0] == '#' {
			continue
		}
		if err := t.add(decoder, line); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, n, err)
		}
	}
	return t, lines.Err()
}

func (t *table) add(decoder *crypt.Decoder, line string) error {
	user, rest, ok := strings.Cut(line, ":")
	if !ok || user == "" {
		return fmt.Errorf("%w: want USER:HASH", ErrSyntax)
	}
	if t.hashes[user] != nil {
		return fmt.Errorf("%w: %q is there twice", ErrSyntax, user)
	}
	text, _, _ := strings.Cut(rest, ":")
	hash, err := decode(decoder, text)
	if err != nil {
		return err
	}
	t.hashes[user] = hash
	t.all = append(t.all, hash)
	return nil
}

// scheme is what dovecot writes before a hash that says itself what it is; hashes are those of which the cost is bearable.
var (
	scheme = regexp.MustCompile(`^\{(?i:CRYPT|BLF-CRYPT|SHA256-CRYPT|SHA512-CRYPT)\}`)
	hashes = regexp.MustCompile(`^(\$2[aby]\$(0[4-9]|1[0-6])\$[./0-9A-Za-z]{53}|\$5\$(rounds=[1-9][0-9]{3,6}\$)?` +
		`[^$:]{1,16}\$[./0-9A-Za-z]{43}|\$6\$(rounds=[1-9][0-9]{3,6}\$)?[^$:]{1,16}\$[./0-9A-Za-z]{86})$`)
)

func decode(decoder *crypt.Decoder, text string) (algorithm.Digest, error) {
	text = text[len(scheme.FindString(text)):]
	if !hashes.MatchString(text) {
		return nil, fmt.Errorf("%w: want bcrypt's as in $2y$10$... with a cost from 04 to 16, or one of SHA-2 as in $6$... or $5$... "+
			"with at most 9999999 rounds", ErrHash)
	}
	d, err := decoder.Decode(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHash, err)
	}
	return d, nil
}

// maxPassword is the length of a password that is hashed, octets: the cost of SHA-2's hashes grows with it, and libcrypt
// takes no longer one (crypt(3), CRYPT_MAX_PASSPHRASE_SIZE).
const maxPassword = 511

// check compares a password with the user's hash. Of a user whom the file does not have it is another one's, the same each
// time, so that refusals of unknown users take as long as those of known ones.
func (t *table) check(user string, password inspect.Secret) (inspect.Outcome, error) {
	hash, known := t.hashes[user]
	if !known && len(t.all) > 0 {
		hash = t.all[maphash.String(t.seed, user)%uint64(len(t.all))]
	}
	if hash == nil || len(password) > maxPassword {
		return inspect.Wrong, nil
	}
	match, err := hash.MatchAdvanced(string(password))
	switch {
	case err != nil:
		return inspect.Failed, fmt.Errorf("compare with a hash: %w", err)
	case match && known:
		return inspect.Right, nil
	}
	return inspect.Wrong, nil
}

// File is a file of hashes that is read again when it has changed. One that is bad then changes nothing.
type File struct {
	path string
	log  *slog.Logger

	mu     sync.Mutex
	table  *table
	stamp  os.FileInfo
	looked time.Time
}

// lookPeriod is how often a file is looked at.
const lookPeriod = time.Second

// OpenFile reads a file of hashes. The error names file and line.
func OpenFile(path string, log *slog.Logger) (*File, error) {
	f := &File{path: path, log: log, looked: time.Now()}
	var err error
	f.table, f.stamp, err = load(path)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// CheckFile returns what is wrong with a file, with its line, or nil.
func CheckFile(path string) error {
	_, _, err := load(path)
	return err
}

func load(path string) (*table, os.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read passwords: %w", err)
	}
	defer func() { _ = f.Close() }()
	stamp, err := f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("read passwords: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("read passwords: %w", err)
	case len(data) > MaxFile:
		return nil, nil, fmt.Errorf("%w: %s has more than %d octets", ErrSize, path, MaxFile)
	}
	t, err := parse(path, data)
	return t, stamp, err
}

// Check implements Checker. It takes as long as the hash does.
func (f *File) Check(_ context.Context, q Question) (inspect.Outcome, error) {
	return f.current(time.Now()).check(q.User, q.Password)
}

// current is what the file says now.
func (f *File) current(now time.Time) *table {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Sub(f.looked) < lookPeriod {
		return f.table
	}
	f.looked = now
	info, err := os.Stat(f.path)
	if same(info, f.stamp) {
		return f.table
	}
	f.stamp = info // a bad file is told once
	var t *table
	if err == nil {
		t, info, err = load(f.path)
	}
	if err != nil {
		f.log.Error("passwords: they stay as they were", "err", err)
		return f.table
	}
	f.table, f.stamp = t, info
	f.log.Info("passwords: file read again", "file", f.path, "users", len(t.all))
	return t
}

// same reports whether two looks at a file, or at none, have seen the same.
func same(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == b
	}
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
