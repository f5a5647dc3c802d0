package lab

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// nrHugepages is the machine's number of 2 MiB hugepages (Linux, admin-guide/mm/hugetlbpage).
const nrHugepages = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"

// hugepagesOf is the file that says how many hugepages the lab with that prefix has added to the machine's.
func hugepagesOf(prefix string) string { return directoryOf(prefix) + "-hugepages" }

// borrowHugepages adds up to n hugepages to the machine's, as many as the kernel can find, and notes how many, so that
// whoever cleans up can take them away again. Several labs may do so at once.
func borrowHugepages(prefix string, n int) error {
	unlock, err := lockHugepages()
	if errors.Is(err, os.ErrNotExist) {
		return nil // a kernel without them: the forwarder does without
	}
	if err != nil {
		return err
	}
	defer unlock()
	before, err := readNumber(nrHugepages)
	if err != nil {
		return err
	}
	// Noted first, at its most: when this process dies in between, too few would be left rather than too many.
	if err := writeNumber(hugepagesOf(prefix), n); err != nil {
		return err
	}
	if err := writeNumber(nrHugepages, before+n); err != nil {
		return errors.Join(err, os.Remove(hugepagesOf(prefix)))
	}
	got, err := readNumber(nrHugepages)
	if err != nil {
		return err
	}
	return writeNumber(hugepagesOf(prefix), got-before)
}

// returnHugepages undoes borrowHugepages. It is no error when nothing was borrowed.
func returnHugepages(prefix string) error {
	borrowed, err := readNumber(hugepagesOf(prefix))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	unlock, err := lockHugepages()
	if err != nil {
		return err
	}
	defer unlock()
	now, err := readNumber(nrHugepages)
	if err != nil {
		return err
	}
	return errors.Join(writeNumber(nrHugepages, max(0, now-borrowed)), os.Remove(hugepagesOf(prefix)))
}

// lockHugepages keeps other labs from changing the machine's number meanwhile.
func lockHugepages() (unlock func(), err error) {
	f, err := os.Open(nrHugepages)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil // which also unlocks
}

func readNumber(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	return n, nil
}

func writeNumber(path string, n int) error {
	return os.WriteFile(path, []byte(strconv.Itoa(n)+"\n"), 0o644)
}
