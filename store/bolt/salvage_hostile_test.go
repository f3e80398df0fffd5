//go:build !race

// Salvaging is the work of one goroutine: the race detector would see nothing here.

package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"go.etcd.io/bbolt"

	"sessiond/store"
)

const craftSize = 4096

// craft makes a file of pages, whose tree begins with page 2: the table of kinds with a
// bucket "a", which begins with page 3. Pages holds them from 3 on.
func craft(t *testing.T, pages []byte) (path string) {
	t.Helper()
	file := make([]byte, 3*craftSize, 3*craftSize+len(pages))
	file = append(file, pages...)
	for id := range uint64(2) {
		p := file[id*craftSize:]
		order.PutUint64(p, id)
		order.PutUint16(p[8:], metaPage)
		m := p[pageHead:]
		order.PutUint32(m, metaMagic)
		order.PutUint32(m[4:], metaVersion)
		order.PutUint32(m[8:], craftSize)
		order.PutUint64(m[16:], 2)
		order.PutUint64(m[32:], noFreelist)
		order.PutUint64(m[40:], uint64(len(file))/craftSize)
		order.PutUint64(m[48:], id+1)
		h := fnv.New64a()
		_, _ = h.Write(m[:56])
		order.PutUint64(m[56:], h.Sum64())
	}
	bucket := make([]byte, bucketHead)
	order.PutUint64(bucket, 3)
	copy(file[2*craftSize:], leafOf(2, element{flags: bucketLeaf, key: []byte("a"), value: bucket}))
	path = filepath.Join(t.TempDir(), "crafted.db")
	if err := os.WriteFile(path, file, fileMode); err != nil {
		t.Fatal(err)
	}
	return path
}

// leafOf is a leaf as bbolt writes it.
func leafOf(id uint64, all ...element) []byte {
	p := make([]byte, pageHead+len(all)*elementSize)
	order.PutUint64(p, id)
	order.PutUint16(p[8:], leafPage)
	order.PutUint16(p[10:], uint16(len(all)))
	for i, e := range all {
		at := pageHead + i*elementSize
		order.PutUint32(p[at:], e.flags)
		order.PutUint32(p[at+4:], uint32(len(p)-at))
		order.PutUint32(p[at+8:], uint32(len(e.key)))
		order.PutUint32(p[at+12:], uint32(len(e.value)))
		p = append(append(p, e.key...), e.value...)
	}
	order.PutUint32(p[12:], uint32((len(p)-1)/craftSize))
	return p
}

// branchOf is a branch as bbolt writes it.
func branchOf(id uint64, children ...uint64) []byte {
	p := make([]byte, pageHead+len(children)*elementSize)
	order.PutUint64(p, id)
	order.PutUint16(p[8:], branchPage)
	order.PutUint16(p[10:], uint16(len(children)))
	for i, child := range children {
		at := pageHead + i*elementSize
		order.PutUint32(p[at:], uint32(len(p)-at))
		order.PutUint32(p[at+4:], 2)
		order.PutUint64(p[at+8:], child)
		p = append(p, '/', byte('0'+i))
	}
	return p
}

// Pages of a hostile file are walked once, however they overlap.
func TestSalvageWalksAPageOnce(t *testing.T) {
	for _, deep := range []int{8, 10, 12} {
		file := make([]byte, 2*deep*craftSize)
		for i := range deep {
			b := uint64(3 + 2*i) // the branch, and behind it a leaf that claims all the pages beyond
			copy(file[2*i*craftSize:], branchOf(b, b+2, b+1, b+2))
			room := len(file) - (2*i+1)*craftSize
			l := leafOf(b+1, element{key: []byte("/x"), value: make([]byte, room-pageHead-elementSize-2)})
			copy(file[(2*i+1)*craftSize:], l[:pageHead+elementSize+2])
		}
		path := craft(t, file)
		s, err := Salvage(t.Context(), path, path+".salvaged", []string{"a"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if pages := 3 + 2*deep; len(s.Lost) > 3*pages {
			t.Errorf("%d pages: %d ranges are lost", pages, len(s.Lost))
		}
	}
}

// What is kept of pages that overlap takes no more memory than the file has bytes, or so.
func TestSalvageOfOverlappingPages(t *testing.T) {
	const pages = 256
	file := make([]byte, pages*craftSize)
	for i := range pages {
		name := fmt.Appendf(nil, "/%03d", i)
		value := seal(make([]byte, valueHead), 0, "a", name, 1)
		room := len(file) - i*craftSize - 200
		l := leafOf(uint64(3+i), element{key: name, value: value}, element{key: []byte("/x"), value: make([]byte, room)})
		copy(file[i*craftSize:], l[:200])
	}
	f, err := os.Open(craft(t, file))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	m := &miner{ctx: t.Context(), f: f, found: &Salvaged{}, strays: map[string][]stray{}, kinds: []string{"a"}, rootLost: true}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	if err := m.scan(int64(len(file)+3*craftSize), craftSize, nil); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc - before.HeapAlloc); grown > 8*int64(len(file)) {
		t.Errorf("a file of %d KiB takes %d KiB", len(file)>>10, grown>>10)
	}
	runtime.KeepAlive(m)
}

// An anchor with a good CRC that is none does not spoil what is salvaged.
func TestSalvageOfAnAnchorThatIsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	commit(t, s, store.Tx{Put: []store.Put{{Key: store.AnchorKey, Value: []byte("nonsense")}}, Append: [][]byte{[]byte("entry")}})
	shut(t, s)
	if _, err := Salvage(t.Context(), path, path+".salvaged", []string{"anchor", "log"}, nil); err != nil {
		t.Fatal(err)
	}
	verified(t, path+".salvaged")
}

// A key that bbolt does not take does not end the salvage.
func TestSalvageOfALongKey(t *testing.T) {
	name := append([]byte("/"), bytes.Repeat([]byte("x"), bbolt.MaxKeySize)...)
	l := leafOf(3, element{key: name, value: seal(make([]byte, valueHead), 0, "a", name, 1)})
	file := make([]byte, 9*craftSize)
	copy(file, l)
	path := craft(t, file)
	if _, err := Salvage(t.Context(), path, path+".salvaged", []string{"a"}, nil); err != nil {
		t.Fatal(err)
	}
	verified(t, path+".salvaged")
}

// The last revision there can be leaves no room for the next commit.
func TestSalvageOfTheLastRevision(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, err := Open(t.Context(), path, Options{Beyond: math.MaxUint64 - 1})
	if err != nil {
		t.Fatal(err)
	}
	commit(t, s, store.Tx{Put: []store.Put{{Key: "a/1", Value: []byte("one")}}})
	shut(t, s)
	damage(t, path, func(file []byte) []byte { clear(file[:os.Getpagesize()]); return file })
	found, err := Salvage(t.Context(), path, path+".salvaged", []string{"a"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = Open(t.Context(), path+".salvaged", Options{Beyond: found.Beyond}); err != nil {
		t.Fatal(err)
	}
	commit(t, s, store.Tx{Append: [][]byte{[]byte("mended")}})
	shut(t, s)
	verified(t, path+".salvaged")
}

// A page that was written over another one has left its own place as it was.
func TestSalvageOfAMisdirectedPage(t *testing.T) {
	for range 30 { // where bbolt puts a page is chance
		if misdirected(t) {
			return
		}
	}
	t.Fatal("none was tried")
}

// misdirected tries such a page, if there is one to try.
func misdirected(t *testing.T) (tried bool) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	for i := range 10 {
		var tx store.Tx
		for j := range 90 {
			tx.Put = append(tx.Put, store.Put{Key: fmt.Sprintf("k/%d-%02d", i, j), Value: bytes.Repeat([]byte("v"), 100)})
		}
		commit(t, s, tx)
	}
	for i := range 30 {
		commit(t, s, store.Tx{Put: []store.Put{{Key: fmt.Sprintf("end/%02d", i), Value: bytes.Repeat([]byte("e"), 100)}}})
	}
	for i := 30; i < 60 && !tried; i++ {
		before, _ := os.ReadFile(path)
		key := fmt.Sprintf("end/%02d", i)
		commit(t, s, store.Tx{Put: []store.Put{{Key: key, Value: bytes.Repeat([]byte("e"), 100)}}})
		after, _ := os.ReadFile(path)
		tr, used := usedPages(t, path)
		size := int(tr.pageSize)
		leaf := func(f []byte, id uint64) []byte { return f[int(id)*size : (int(id)+1)*size] }
		var from, to uint64
		for _, id := range used {
			p, was := leaf(after, id), leaf(before, id)
			if order.Uint16(p[8:]) != leafPage || id == tr.root {
				continue
			}
			if bytes.Contains(p, []byte("/"+key[4:]+"\x01")) && order.Uint64(was) == id && order.Uint16(was[8:]) == leafPage && bytes.Contains(was, []byte("/00\x01")) {
				from = id
			} else if bytes.Contains(p, []byte("/5-")) {
				to = id
			}
		}
		if from == 0 || to == 0 {
			continue
		}
		tried = true
		copy(leaf(after, to), leaf(after, from))
		copy(leaf(after, from), leaf(before, from))
		bad := filepath.Join(t.TempDir(), "bad.db")
		if err := os.WriteFile(bad, after, fileMode); err != nil {
			t.Fatal(err)
		}
		found, err := Salvage(t.Context(), bad, bad+".salvaged", []string{"k", "end"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		o := open(t, bad+".salvaged")
		if _, err := o.Get(t.Context(), key); err != nil && !found.IsLost(key) {
			t.Errorf("%s is lost, and nobody is told: %v", key, found.Lost)
		}
		shut(t, o)
	}
	shut(t, s)
	return tried
}

// The newest meta page is gone, and the state before it: there may have been a commit.
func TestSalvageWithoutAStateAndAMetaPage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	commit(t, s, store.Tx{Put: []store.Put{{Key: "a/1", Value: []byte("one")}, {Key: "end/1", Value: []byte("of another")}}})
	commit(t, s, store.Tx{Put: []store.Put{{Key: "end/2", Value: []byte("of a/1")}}})
	shut(t, s)
	damage(t, path, func(file []byte) []byte {
		f, _ := os.Open(path)
		metas := readMetas(f)
		_ = f.Close()
		newest, older := 0, metas[1]
		if metas[1].txid > metas[0].txid {
			newest, older = 1, metas[0]
		}
		size := int(older.pageSize)
		clear(file[newest*size : (newest+1)*size])
		p := file[int(older.root)*size : (int(older.root)+1)*size]
		p[bytes.Index(p, stateName)+len(stateName)+3] ^= 1
		return file
	})
	found, err := Salvage(t.Context(), path, path+".salvaged", []string{"a", "end"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := open(t, path+".salvaged")
	defer shut(t, o)
	if _, err := o.Get(t.Context(), "end/2"); err != nil && !found.IsLost("end/2") {
		t.Errorf("it is lost, and nobody is told: %+v", found)
	}
}

// What a newer program has written is not salvaged, whichever page is damaged.
func TestSalvageOfANewerFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	commit(t, s, store.Tx{Put: []store.Put{{Key: "a/1", Value: []byte("one")}}})
	shut(t, s)
	db, err := bbolt.Open(path, fileMode, &bbolt.Options{NoFreelistSync: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		err = db.Update(func(tx *bbolt.Tx) error {
			st, err := readState(tx)
			st.format, st.least = Format+1, Format+1
			return errors.Join(err, writeState(tx.Bucket(metaBucket), st))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	try := func(what string) {
		_ = os.Remove(path + ".salvaged")
		if _, err := Salvage(t.Context(), path, path+".salvaged", []string{"a"}, nil); !errors.Is(err, ErrNewer) {
			t.Errorf("%s: %v", what, err)
		}
	}
	try("sound")
	damage(t, path, func(file []byte) []byte { clear(file[:os.Getpagesize()]); return file })
	try("without a meta page")
}
