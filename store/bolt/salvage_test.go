//go:build !race

// Salvaging is the work of one goroutine: the race detector would see nothing here.

package bolt

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sessiond/store"
)

// What is salvaged of a file with one damage: all that was not hit, nothing that was
// not there, and nothing that was deleted.
func TestSalvage(t *testing.T) {
	path, want, gone := churned(t)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tr, used := usedPages(t, path)
	size := int(tr.pageSize)
	random := rand.New(rand.NewPCG(1, 2))
	try := func(name string, least int, change func(file []byte) []byte) *Salvaged {
		t.Helper()
		bad := filepath.Join(t.TempDir(), "bad.db")
		changed := change(bytes.Clone(sound))
		if err := os.WriteFile(bad, changed, fileMode); err != nil {
			t.Fatal(err)
		}
		out := bad + ".salvaged"
		s, err := Salvage(t.Context(), bad, out, []string{"a", "big", "k", "log", "anchor"}, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return &Salvaged{}
		}
		if after, err := os.ReadFile(bad); err != nil || !bytes.Equal(changed, after) {
			t.Errorf("%s: the damaged file has changed: %v", name, err)
		}
		sum := verified(t, out)
		for kind, n := range s.Kinds {
			if sum.Kinds[kind] != n {
				t.Errorf("%s: %d of kind %s, it says %d", name, sum.Kinds[kind], kind, n)
			}
		}
		got := items(t, out)
		kept := 0
		for key, value := range want {
			if got[key] == value {
				kept++
			}
		}
		for key, value := range got {
			if want[key] == value || s.Doubtful[key] {
				continue
			}
			t.Errorf("%s: %q is %.20q, it was %.20q, deleted: %t, and that is not in doubt", name, key, value, want[key], gone[key])
		}
		if s.Complete && (kept != len(want) || len(got) != len(want)) {
			t.Errorf("%s: complete: %t, with %d of %d values and %d in all", name, s.Complete, kept, len(want), len(got))
		}
		for key := range want {
			if _, ok := got[key]; !ok && !s.IsLost(key) && !strings.HasPrefix(key, "log/") {
				t.Errorf("%s: %q is lost, and nobody is told", name, key)
			}
		}
		if kept < least {
			t.Errorf("%s: %d of %d values, want at least %d; lost %v", name, kept, len(want), least, s.Lost)
		}
		return s
	}
	all := len(want)
	if s := try("nothing", all, func(f []byte) []byte { return f }); !s.Complete || s.Broken != nil || !s.LogWhole {
		t.Errorf("of a sound file: %+v", s)
	}
	leaf := 90 // values of a page at most, and entries before a hole in the log are given up
	if n := len(used); n < 40 {
		t.Fatalf("%d pages", n)
	}
	var branches, leaves []uint64
	for _, id := range used {
		if order.Uint16(sound[int(id)*size+8:]) == branchPage {
			branches = append(branches, id)
		} else {
			leaves = append(leaves, id)
		}
	}
	page := func(f []byte, id uint64) []byte { return f[int(id)*size : (int(id)+1)*size] }
	logs := int(verified(t, path).Kinds["log"])
	for _, id := range branches {
		try(fmt.Sprintf("branch %d zeroed", id), all, func(f []byte) []byte { clear(page(f, id)); return f })
		for i := 2; i < int(order.Uint16(page(sound, id)[10:])); i += 5 {
			try(fmt.Sprintf("branch %d, child %d", id, i), all-leaf-logs, func(f []byte) []byte {
				page(f, id)[pageHead+i*elementSize+8] ^= 1 << (i % 6)
				return f
			})
		}
	}
	for _, id := range leaves {
		if id == tr.root || id%12 != 0 {
			continue
		}
		try(fmt.Sprintf("leaf %d zeroed", id), all-leaf-logs, func(f []byte) []byte { clear(page(f, id)); return f })
		for range 2 {
			at, bit := random.IntN(size), random.IntN(8)
			try(fmt.Sprintf("leaf %d, byte %d bit %d", id, at, bit), all-leaf-logs, func(f []byte) []byte { page(f, id)[at] ^= 1 << bit; return f })
		}
		for at := id % 5; at < 36; at += 5 {
			bit := random.IntN(8)
			try(fmt.Sprintf("leaf %d, head byte %d bit %d", id, at, bit), all-leaf-logs, func(f []byte) []byte { page(f, id)[at] ^= 1 << bit; return f })
		}
	}
	inside := leaves[slices.IndexFunc(leaves, func(id uint64) bool { return order.Uint64(page(sound, id)) != id })] // a long value
	for i := 1; i < len(leaves); i++ {
		a, b := leaves[i-1], leaves[i]
		if i%9 == 4 {
			a = inside
		} else if i%9 != 0 {
			continue
		}
		if a == tr.root || b == tr.root {
			continue
		}
		try(fmt.Sprintf("leaves %d and %d swapped", a, b), all-1, func(f []byte) []byte {
			was := bytes.Clone(page(f, a))
			copy(page(f, a), page(f, b))
			copy(page(f, b), was)
			return f
		})
	}
	try("root zeroed", all*9/10, func(f []byte) []byte { clear(page(f, tr.root)); return f })
	for at := 0; at < 64; at += 7 {
		try(fmt.Sprintf("root, byte %d", at), all*9/10, func(f []byte) []byte { page(f, tr.root)[at] ^= 1 << (at % 8); return f })
	}
	for id := range uint64(2) {
		try(fmt.Sprintf("meta page %d zeroed", id), all*9/10, func(f []byte) []byte { clear(page(f, id)); return f })
	}
	try("both meta pages zeroed", all*9/10, func(f []byte) []byte { clear(f[:2*size]); return f })
}

// churned is a store with pages that were freed, what it holds, and what was deleted.
func churned(t *testing.T) (path string, want map[string]string, gone map[string]bool) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	gone = map[string]bool{}
	for i := range 60 {
		var tx store.Tx
		for j := range 40 {
			key := fmt.Sprintf("a/%03d-%02d", i, j)
			tx.Put = append(tx.Put, store.Put{Key: key, Value: bytes.Repeat(fmt.Appendf(nil, "%03d-%02d ", i, j), 10)})
		}
		for j := range 3 {
			tx.Put = append(tx.Put, store.Put{Key: fmt.Sprintf("k/%02d-%d", i*37%60, j), Value: fmt.Appendf(nil, "of %d", i)})
		}
		tx.Append = [][]byte{fmt.Appendf(nil, "entry %d", i)}
		commit(t, s, tx)
		if i%3 == 2 {
			var tx store.Tx
			for j := range 20 {
				key := fmt.Sprintf("a/%03d-%02d", i-2, 2*j)
				tx.Delete = append(tx.Delete, key)
				gone[key] = true
			}
			tx.Put = append(tx.Put, store.Put{Key: fmt.Sprintf("a/%03d-01", i-1), Value: []byte("changed")})
			commit(t, s, tx)
		}
	}
	commit(t, s, store.Tx{Put: []store.Put{{Key: "big/one", Value: bytes.Repeat([]byte("large "), 3000)}}})
	shut(t, s)
	tr, _ := usedPages(t, path)
	if err := os.Truncate(path, int64(tr.pages)*tr.pageSize); err != nil {
		t.Fatal(err)
	}
	return path, items(t, path), gone
}

// items are all values of a store, the anchor left out.
func items(t *testing.T, path string) map[string]string {
	t.Helper()
	s := open(t, path)
	defer shut(t, s)
	all := map[string]string{}
	for _, kind := range []string{"a/", "big/", "k/", "log/"} {
		r := store.Range{Prefix: kind}
		for {
			found, err := s.List(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			for i := range found {
				all[found[i].Key] = string(found[i].Value)
			}
			if len(found) < 1000 {
				break
			}
			r.After = found[len(found)-1].Key
		}
	}
	return all
}

// Of pages that nothing leads to any more, the one that was written last speaks for the
// keys between its own: what an older one has there was replaced, or deleted, and stays
// so.
func TestTheNewerPageSpeaks(t *testing.T) {
	key := func(i int) string { return fmt.Sprintf("k/%03d", i) }
	for name, last := range map[string]store.Tx{
		"a value was deleted and its neighbour changed": {Delete: []string{key(10)}, Put: []store.Put{{Key: key(11), Value: []byte("changed")}}},
		"a value was deleted, and nothing else":         {Delete: []string{key(10)}},
		"a value was changed":                           {Put: []store.Put{{Key: key(10), Value: []byte("changed")}}},
		"a value was added":                             {Put: []store.Put{{Key: key(10) + "a", Value: []byte("added")}}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			s := open(t, path)
			for from := 0; from < 900; from += 90 {
				var tx store.Tx
				for i := range 90 {
					tx.Put = append(tx.Put, store.Put{Key: key(from + i), Value: bytes.Repeat([]byte("v"), 100)})
				}
				commit(t, s, tx)
			}
			commit(t, s, last) // bbolt leaves the pages of before as they were
			shut(t, s)
			want := items(t, path)
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			_, used := usedPages(t, path)
			size, cleared := os.Getpagesize(), 0
			for _, id := range used {
				if page := content[int(id)*size : (int(id)+1)*size]; order.Uint16(page[8:]) == branchPage {
					clear(page)
					cleared++
				}
			}
			bad := path + ".bad"
			if err := os.WriteFile(bad, content, fileMode); err != nil || cleared != 1 {
				t.Fatalf("%d pages lead to others: %v", cleared, err)
			}
			found, err := Salvage(t.Context(), bad, bad+".salvaged", []string{"k"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := items(t, bad+".salvaged"); !maps.Equal(got, want) || !found.Complete || len(found.Doubtful) > 0 {
				t.Errorf("%d values, want %d; complete: %t, in doubt: %d", len(got), len(want), found.Complete, len(found.Doubtful))
			}
		})
	}
}

// A file that has lost its meta pages and its state, and has one small value: what is
// salvaged is sound, which a store is not that has values of later commits than its own.
func TestSalvageOfAValueAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	commit(t, s, store.Tx{Put: []store.Put{{Key: "a/1", Value: []byte("one")}}})
	shut(t, s)
	damage(t, path, func(file []byte) []byte {
		clear(file[:2*os.Getpagesize()])
		return bytes.ReplaceAll(file, stateName, bytes.Repeat([]byte{'x'}, len(stateName)))
	})
	out := path + ".salvaged"
	if found, err := Salvage(t.Context(), path, out, []string{"a"}, nil); err != nil || found.Kinds["a"] != 1 {
		t.Fatalf("%+v, %v", found, err)
	}
	verified(t, out)
	if got := items(t, out); got["a/1"] != "one" {
		t.Errorf("%q", got)
	}
}
