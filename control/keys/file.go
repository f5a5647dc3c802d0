package keys

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrReadable says that others than the owner may read a ring's file.
var ErrReadable = errors.New("others may read it: chmod 600")

// Load reads a ring's file. An error is fs.ErrNotExist, ErrReadable or ErrMalformed, or the system's.
func Load(path string) (Ring, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read key ring: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("read key ring %s: %w", path, ErrReadable)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read key ring: %w", err)
	}
	r, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("read key ring %s: %w", path, err)
	}
	return r, nil
}

// Save replaces a ring's file as a whole: a reader sees the old one or the new one, also after a crash.
func Save(path string, r Ring) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write key ring: %w", err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(r.Text())
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write key ring: %w", err)
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write key ring: %w", err)
	}
	return nil
}

// LoadOrCreate loads a ring's file, or makes it with one secret if there is none.
func LoadOrCreate(path string, create func() Ring) (Ring, error) {
	r, err := Load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	r = create()
	return r, Save(path, r)
}
