package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sessiond/store"
)

// Whatever is written over a file, Verify ends without a panic: it finds the
// damage, or all is there as it was in one of the states that the file holds.
func FuzzVerify(f *testing.F) {
	path := filepath.Join(f.TempDir(), "store.db")
	s := open(f, path)
	states := map[store.Rev]Summary{}
	for i := range 6 {
		var tx store.Tx
		for j := range 30 {
			tx.Put = append(tx.Put, store.Put{Key: fmt.Sprintf("a/%d-%02d", i, j), Value: fmt.Appendf(nil, "the value of %d and %d", i, j)})
		}
		tx.Append = [][]byte{fmt.Appendf(nil, "entry %d", i)}
		commit(f, s, tx)
		shut(f, s)
		sum, err := Verify(f.Context(), path, nil)
		if err != nil {
			f.Fatal(err)
		}
		states[sum.Rev] = sum
		s = open(f, path)
	}
	shut(f, s)
	whole, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	page := os.Getpagesize()
	used := (len(bytes.TrimRight(whole, "\x00")) + page - 1) / page * page
	f.Add(uint32(0), []byte{1})
	f.Add(uint32(page), whole[:page])
	f.Add(uint32(3*page+8), []byte{0xff, 0x7f})
	f.Add(uint32(used-1), []byte{1})
	f.Fuzz(func(t *testing.T, at uint32, with []byte) {
		file := bytes.Clone(whole[:used])
		copy(file[int(at)%used:], with)
		path := filepath.Join(t.TempDir(), "store.db")
		if err := os.WriteFile(path, file, fileMode); err != nil {
			t.Fatal(err)
		}
		sum, err := Verify(t.Context(), path, nil)
		if err != nil {
			if !errors.Is(err, store.ErrCorrupt) {
				t.Errorf("Verify: %v", err)
			}
			return
		}
		want, held := states[sum.Rev]
		sum.Size, want.Size = 0, 0
		if diff := cmp.Diff(want, sum); !held || diff != "" {
			t.Errorf("Verify finds nothing, but (-was +is)\n%s", diff)
		}
	})
}
