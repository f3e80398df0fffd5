package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sessiond/store"
)

// sample makes a closed store with records and entries on several pages.
func sample(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	for i := range 8 {
		var tx store.Tx
		for j := range 40 {
			tx.Put = append(tx.Put, store.Put{Key: fmt.Sprintf("a/%d-%02d", i, j), Value: fmt.Appendf(nil, "the value of %d and %d", i, j)})
		}
		if i < 3 {
			tx.Put = append(tx.Put, store.Put{Key: fmt.Sprintf("big/%d", i), Value: bytes.Repeat([]byte{'b', byte(i)}, 5000)})
		}
		tx.Append = [][]byte{fmt.Appendf(nil, "entry %d", i)}
		commit(t, s, tx)
	}
	shut(t, s)
	tr, _ := usedPages(t, path)
	if err := os.Truncate(path, int64(tr.pages)*tr.pageSize); err != nil { // bbolt keeps 16 MiB in store
		t.Fatal(err)
	}
	return path
}

func damage(t *testing.T, path string, change func(file []byte) []byte) {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(file), fileMode); err != nil {
		t.Fatal(err)
	}
}

// flipped flips a bit of a text wherever it stands: older pages may hold it as well.
func flipped(t *testing.T, file []byte, text string) []byte {
	t.Helper()
	hits := 0
	for at := 0; ; hits++ {
		i := bytes.Index(file[at:], []byte(text))
		if i < 0 {
			break
		}
		at += i
		file[at+4] ^= 0x10
		at++
	}
	if hits == 0 {
		t.Fatal("the value is not in the file")
	}
	return file
}

func TestFlippedBitInAValue(t *testing.T) {
	path := sample(t)
	damage(t, path, func(file []byte) []byte { return flipped(t, file, "the value of 3 and 21") })
	_, err := Verify(t.Context(), path, nil)
	if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), `kind a, key "a/3-21"`) {
		t.Errorf("Verify: %v, want ErrCorrupt with kind and key", err)
	}
	s := unchecked(t, path)
	defer shut(t, s)
	if _, err := s.Get(t.Context(), "a/3-21"); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), `"a/3-21"`) {
		t.Errorf("Get: %v, want ErrCorrupt with the key", err)
	}
	if _, err := s.List(t.Context(), store.Range{Prefix: "a/3"}); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("List: %v, want ErrCorrupt", err)
	}
	_, err = s.Commit(t.Context(), store.Tx{If: []store.Cond{{Key: "a/3-21", Rev: 4}}, Append: [][]byte{[]byte("x")}})
	if !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("Commit on its revision: %v, want ErrCorrupt", err)
	}
	if item, err := s.Get(t.Context(), "a/3-22"); err != nil || string(item.Value) != "the value of 3 and 22" {
		t.Errorf("its neighbour: %q, %v", item.Value, err)
	}
}

func TestBrokenChain(t *testing.T) {
	path := sample(t)
	s := open(t, path)
	noted := verifiedHead(t, s)
	commit(t, s, store.Tx{Delete: []string{store.LogKey(5)}})
	shut(t, s)
	if _, err := Verify(t.Context(), path, nil); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "position 5 is missing") {
		t.Errorf("Verify: %v, want ErrCorrupt at position 5", err)
	}
	s = unchecked(t, path)
	commit(t, s, store.Tx{Delete: []string{store.LogKey(6), store.LogKey(7), store.LogKey(8)}})
	shut(t, s)
	if _, err := Verify(t.Context(), path, nil); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("Verify of a log without its end: %v, want ErrCorrupt", err)
	}
	s = unchecked(t, path)
	commit(t, s, store.Tx{
		Put:    []store.Put{{Key: store.AnchorKey, Value: noted.Encode()}},
		Delete: []string{store.LogKey(1), store.LogKey(2), store.LogKey(3), store.LogKey(4)},
		Append: [][]byte{[]byte("goes on after a purge")},
	})
	shut(t, s)
	if sum := verified(t, path); sum.Head.Seq != 9 || sum.Kinds["log"] != 1 {
		t.Errorf("summary after a purge: %+v", sum)
	}
}

// unchecked is open for a file that is known to be damaged.
func unchecked(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path, Options{Check: func(context.Context, *os.File, Progress) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func verifiedHead(t *testing.T, s *Store) store.Head {
	t.Helper()
	head, err := store.VerifyLog(t.Context(), s, store.Head{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return head
}

// Whatever is wrong with a file, Verify says so or the content is whole; and
// neither it nor opening ever crashes.
func TestNoDamageGoesUnseen(t *testing.T) {
	path := sample(t)
	want := content(t, path)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tr, used := usedPages(t, path)
	page := func(id uint64) int { return int(id) * int(tr.pageSize) }
	try := func(name string, mustSee bool, change func(file []byte) []byte) {
		t.Helper()
		if err := os.WriteFile(path, change(bytes.Clone(sound)), fileMode); err != nil {
			t.Fatal(err)
		}
		_, err := Verify(t.Context(), path, nil)
		switch {
		case err != nil && !errors.Is(err, store.ErrCorrupt):
			t.Errorf("%s: Verify: %v, want ErrCorrupt", name, err)
		case err == nil && mustSee:
			t.Errorf("%s: Verify has seen nothing", name)
		case err == nil:
			if diff := cmp.Diff(want, content(t, path)); diff != "" {
				t.Errorf("%s: Verify has seen nothing, but (-want +got):\n%s", name, diff)
			}
		}
		s, err := Open(t.Context(), path, Options{})
		if err != nil && !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("%s: Open: %v, want ErrCorrupt", name, err)
		}
		if err == nil {
			shut(t, s)
		}
	}
	for _, id := range used {
		from, size := page(id), int(tr.pageSize)
		try(fmt.Sprintf("page %d zeroed", id), true, func(f []byte) []byte { clear(f[from : from+size]); return f })
		// The head and the first elements hold bbolt's own numbers.
		for at := range 36 {
			try(fmt.Sprintf("page %d, byte %d", id, at), false, func(f []byte) []byte { f[from+at] ^= 1 << (at % 8); return f })
		}
		for at := 36; at < size; at += 397 {
			try(fmt.Sprintf("page %d, byte %d", id, at), false, func(f []byte) []byte { f[from+at] ^= 1 << (at % 8); return f })
		}
	}
	for id := range 2 { // the one of the last commit, and the one before it
		for at := range pageHead + 64 {
			mustSee := at < 10 || at >= pageHead // a page's count and overflow are of no use here
			try(fmt.Sprintf("meta page %d, byte %d", id, at), mustSee, func(f []byte) []byte { f[page(uint64(id))+at] ^= 1 << (at % 8); return f })
		}
		other := page(uint64(1 - id))
		try(fmt.Sprintf("meta page %d over the other", id), true, func(f []byte) []byte {
			copy(f[page(uint64(id)):page(uint64(id+1))], f[other:other+page(1)])
			return f
		})
	}
	for _, size := range []int{1, 100, 4096, 8192, page(tr.pages) - 1} {
		try(fmt.Sprintf("cut to %d bytes", size), true, func(f []byte) []byte { return f[:size] })
	}
	try("both meta pages zeroed", true, func(f []byte) []byte { clear(f[:page(2)]); return f })
}

// usedPages returns the pages that hold the content, overflow pages left out.
func usedPages(t *testing.T, path string) (*tree, []uint64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	tr, err := readTree(f)
	if err == nil {
		err = tr.walk(t.Context(), func(string, []byte, []byte) error { return nil })
	}
	if err != nil {
		t.Fatal(err)
	}
	var used []uint64
	for id := range tr.pages {
		if tr.seen[id/64]&(1<<(id%64)) != 0 {
			used = append(used, id)
		}
	}
	if len(used) < 10 {
		t.Fatalf("the sample has %d pages only", len(used))
	}
	return tr, used
}

func content(t *testing.T, path string) []store.Item {
	t.Helper()
	s := open(t, path)
	defer shut(t, s)
	var all []store.Item
	for _, kind := range []string{"a/", "big/", "log/"} {
		items, err := s.List(t.Context(), store.Range{Prefix: kind})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, items...)
	}
	return all
}
