//go:build !race

// Salvaging is the work of one goroutine: the race detector would see nothing here.

package bolt

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"sessiond/store"
)

// Whatever bytes a file holds: what Verify calls sound, salvage calls complete, and what
// is salvaged is sound.
func FuzzFile(f *testing.F) {
	for name := range files {
		content, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(content[:32<<10], uint16(0), byte(0))
		f.Add(content, uint16(9000), byte(1))
	}
	small := filepath.Join(f.TempDir(), "small.db") // of which each byte is met more often
	s := open(f, small)
	commit(f, s, store.Tx{Put: []store.Put{{Key: "a/1", Value: []byte("one")}, {Key: "big/2", Value: []byte("two")}}, Append: [][]byte{[]byte("entry")}})
	shut(f, s)
	content, err := os.ReadFile(small)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content, uint16(0), byte(0))
	f.Fuzz(func(t *testing.T, content []byte, at uint16, flip byte) {
		if int(at) < len(content) {
			content[at] ^= flip
		}
		path := filepath.Join(t.TempDir(), "any.db")
		if err := os.WriteFile(path, content, fileMode); err != nil {
			t.Fatal(err)
		}
		_, damage := Verify(t.Context(), path, nil)
		if damage != nil && !errors.Is(damage, store.ErrCorrupt) && !errors.Is(damage, ErrNewer) {
			t.Fatalf("Verify: %v", damage)
		}
		draft := path + ".salvaged"
		s, err := Salvage(t.Context(), path, draft, []string{"a", "big", "log", "anchor"}, nil)
		if errors.Is(err, ErrNewer) {
			return
		}
		if err != nil {
			t.Fatalf("Salvage: %v", err)
		}
		if damage == nil && !s.Complete {
			t.Errorf("of a sound file: %+v", s)
		}
		if _, err := Verify(t.Context(), draft, nil); err != nil {
			t.Errorf("what was salvaged: %v", err)
		}
	})
}
