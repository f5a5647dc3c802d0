package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// corpus is what is committed: the scripts made here, and beside them inputs that were found and broke something.
const corpus = "../corpus"

func TestCorpusHasAllScripts(t *testing.T) {
	for name, s := range scripts() {
		committed, err := os.ReadFile(filepath.Join(corpus, name))
		if err != nil || !bytes.Equal(committed, s) {
			t.Errorf("%s: %v; go run ./bench/fuzz/golden bench/fuzz/corpus makes it", name, err)
		}
	}
}
