// Package storetest decides whether a backend keeps the promises of
// store.Store. There are no optional parts: a backend passes all of it.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sessiond/store"
)

// Run tests the stores that open returns: empty ones, closed by the test that
// asked for it.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	t.Helper()
	for _, test := range []struct {
		name string
		run  func(*suite)
	}{
		{"a key is created once", (*suite).createOnce},
		{"a value is replaced at its revision only", (*suite).replace},
		{"a conflict changes nothing", (*suite).conflict},
		{"a commit is all or nothing across kinds", (*suite).allKinds},
		{"an empty value is not an absent one", (*suite).emptyValue},
		{"bytes that went in belong to the caller", (*suite).bytesIn},
		{"bytes that came out belong to the caller", (*suite).bytesOut},
		{"lists are in byte order, both ways", (*suite).listOrder},
		{"lists come in pages", (*suite).listPages},
		{"prefixes end where they should", (*suite).listPrefixes},
		{"reading refuses what is no key", (*suite).readInvalid},
		{"revisions grow by commit", (*suite).revisions},
		{"one of many creators wins", (*suite).race},
		{"counting together loses nothing", (*suite).counter},
		{"update creates, changes and deletes", (*suite).update},
		{"the log has positions and a chain", (*suite).log},
		{"the log can be read from both ends", (*suite).logPages},
		{"the log can be purged up to an anchor", (*suite).logPurge},
		{"a watcher sees every commit before it is answered", (*suite).watch},
		{"a watcher of many committers sees one order", (*suite).watchMany},
		{"a watcher may read", (*suite).watchReads},
		{"a watch from another revision is a gap", (*suite).watchGap},
		{"a stopped watcher is left alone", (*suite).watchStop},
		{"a cancelled commit is busy or done", (*suite).cancelled},
		{"commits outside the limits are refused", (*suite).limits},
		{"urgent commits are commits", (*suite).urgent},
		{"after close nothing is written", (*suite).closed},
		{"it behaves like a map", (*suite).model},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := &suite{T: t, ctx: t.Context(), open: open}
			s.s = s.fresh(t)
			s.fill()
			test.run(s)
		})
	}
}

// suite is one test on one store.
type suite struct {
	*testing.T
	ctx  context.Context //nolint:containedctx // lives as long as the test
	open func(*testing.T) store.Store
	s    store.Store
}

// fresh opens a store that is checked and closed at the end of t.
func (s *suite) fresh(t *testing.T) store.Store {
	t.Helper()
	opened := s.open(t)
	t.Cleanup(func() {
		if err := opened.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return opened
}

// fill puts so much into the store that what it lends instead of giving away is
// overwritten or moved by what follows.
func (s *suite) fill() {
	s.Helper()
	for i := range 30 {
		var tx store.Tx
		for j := range 50 {
			tx.Put = append(tx.Put, store.Put{Key: fmt.Sprintf("filler/%05d", i*50+j), Value: bytes.Repeat([]byte{byte(i), byte(j), 0xa5}, 60)})
		}
		tx.Append = [][]byte{fmt.Appendf(nil, "filler %d", i)}
		s.commit(tx)
	}
}

func (s *suite) commit(tx store.Tx) store.Rev {
	s.Helper()
	rev, err := s.s.Commit(s.ctx, tx)
	if err != nil {
		s.Fatalf("Commit: %v", err)
	}
	return rev
}

func (s *suite) refused(tx store.Tx, want error) {
	s.Helper()
	if rev, err := s.s.Commit(s.ctx, tx); !errors.Is(err, want) || rev != 0 {
		s.Fatalf("Commit = %d, %v, want 0 and %v", rev, err, want)
	}
}

func (s *suite) get(key string) store.Item {
	s.Helper()
	item, err := s.s.Get(s.ctx, key)
	if err != nil {
		s.Fatalf("Get(%q): %v", key, err)
	}
	return item
}

func (s *suite) absent(key string) {
	s.Helper()
	if item, err := s.s.Get(s.ctx, key); !errors.Is(err, store.ErrNotFound) {
		s.Fatalf("Get(%q) = %v, %v, want ErrNotFound", key, item, err)
	}
}

func (s *suite) list(r store.Range) []store.Item {
	s.Helper()
	items, err := s.s.List(s.ctx, r)
	if err != nil {
		s.Fatalf("List(%+v): %v", r, err)
	}
	return items
}

func (s *suite) keys(r store.Range) []string {
	s.Helper()
	keys := []string{}
	for _, item := range s.list(r) {
		keys = append(keys, item.Key)
	}
	return keys
}

func (s *suite) equal(what string, got, want any) {
	s.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		s.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}

func (s *suite) head() store.Head {
	s.Helper()
	head, err := store.VerifyLog(s.ctx, s.s, store.Head{}, nil)
	if err != nil {
		s.Fatalf("VerifyLog: %v", err)
	}
	return head
}

// everything is all that can be read, to compare before and after.
func (s *suite) everything(kinds ...string) map[string]store.Item {
	s.Helper()
	all := map[string]store.Item{}
	for _, kind := range append(kinds, "filler", "log") {
		for after := ""; ; {
			page := s.list(store.Range{Prefix: kind + "/", After: after, Limit: 700})
			if len(page) == 0 {
				break
			}
			for _, item := range page {
				all[item.Key] = item
			}
			after = page[len(page)-1].Key
		}
	}
	return all
}

func put(key, value string) []store.Put { return []store.Put{{Key: key, Value: []byte(value)}} }

func at(key string, rev store.Rev) []store.Cond { return []store.Cond{{Key: key, Rev: rev}} }

func (s *suite) createOnce() {
	tx := store.Tx{If: at("a/1", 0), Put: put("a/1", "first"), Append: [][]byte{[]byte("made a/1")}}
	rev := s.commit(tx)
	tx.Put = put("a/1", "second")
	s.refused(tx, store.ErrConflict)
	s.equal("item", s.get("a/1"), store.Item{Key: "a/1", Value: []byte("first"), Rev: rev})
}

func (s *suite) replace() {
	one := s.commit(store.Tx{Put: put("a/1", "one")})
	other := s.commit(store.Tx{Put: put("a/2", "other")})
	s.refused(store.Tx{If: at("a/1", other), Put: put("a/1", "wrong")}, store.ErrConflict)
	two := s.commit(store.Tx{If: at("a/1", one), Put: put("a/1", "two")})
	s.refused(store.Tx{If: at("a/1", one), Delete: []string{"a/1"}}, store.ErrConflict)
	s.equal("item", s.get("a/1"), store.Item{Key: "a/1", Value: []byte("two"), Rev: two})
	s.commit(store.Tx{If: at("a/1", two), Delete: []string{"a/1"}})
	s.absent("a/1")
	s.refused(store.Tx{If: at("a/1", two), Put: put("a/1", "revived")}, store.ErrConflict)
	s.commit(store.Tx{If: at("a/1", 0), Put: put("a/1", "anew")})
}

func (s *suite) conflict() {
	s.commit(store.Tx{Put: []store.Put{{Key: "a/keep", Value: []byte("kept")}, {Key: "a/drop", Value: []byte("there")}}})
	before, rev, head := s.everything("a", "b"), s.s.Rev(), s.head()
	s.refused(store.Tx{
		If:     []store.Cond{{Key: "b/new", Rev: 0}, {Key: "a/keep", Rev: rev}, {Key: "a/drop", Rev: rev + 1}},
		Put:    []store.Put{{Key: "b/new", Value: []byte("never")}, {Key: "a/keep", Value: []byte("never")}},
		Delete: []string{"a/drop"},
		Append: [][]byte{[]byte("never")},
	}, store.ErrConflict)
	s.equal("all items", s.everything("a", "b"), before)
	s.equal("revision", s.s.Rev(), rev)
	s.equal("head of the log", s.head(), head)
	s.equal("next revision", s.commit(store.Tx{Put: put("a/keep", "changed")}) > rev, true)
}

func (s *suite) allKinds() {
	s.commit(store.Tx{Put: put("a/old", "old")})
	seq := s.head().Seq
	rev := s.commit(store.Tx{
		If:     []store.Cond{{Key: "a/old", Rev: s.s.Rev()}, {Key: "b/new", Rev: 0}},
		Put:    []store.Put{{Key: "b/new", Value: []byte("b")}, {Key: "c/new", Value: []byte("c")}},
		Delete: []string{"a/old", "a/never"},
		Append: [][]byte{[]byte("x"), []byte("y")},
	})
	s.absent("a/old")
	s.equal("b", s.get("b/new"), store.Item{Key: "b/new", Value: []byte("b"), Rev: rev})
	s.equal("c", s.get("c/new"), store.Item{Key: "c/new", Value: []byte("c"), Rev: rev})
	s.equal("entry", s.get(store.LogKey(seq+2)).Rev, rev)
}

func (s *suite) emptyValue() {
	rev := s.commit(store.Tx{Put: []store.Put{{Key: "a/empty", Value: nil}, {Key: "a/", Value: []byte{}}}, Append: [][]byte{nil}})
	for _, key := range []string{"a/empty", "a/"} {
		s.equal(key, s.get(key), store.Item{Key: key, Value: []byte{}, Rev: rev})
		s.refused(store.Tx{If: at(key, 0), Put: put(key, "x")}, store.ErrConflict)
	}
	for _, item := range s.list(store.Range{Prefix: "a/"}) {
		s.equal(item.Key, item.Value, []byte{})
	}
}

func (s *suite) bytesIn() {
	value, data := []byte("value"), []byte("entry")
	tx := store.Tx{Put: []store.Put{{Key: "a/1", Value: value}}, Append: [][]byte{data}, If: at("a/1", 0)}
	s.commit(tx)
	seq := s.head().Seq
	s.equal("value after Commit", string(value), "value")
	copy(value, "XXXXX")
	copy(data, "XXXXX")
	s.equal("stored value", string(s.get("a/1").Value), "value")
	entries, err := store.ReadLog(s.ctx, s.s, seq-1, 1)
	if err != nil {
		s.Fatal(err)
	}
	s.equal("stored entry", string(entries[0].Data), "entry")
}

func (s *suite) bytesOut() {
	s.commit(store.Tx{Put: []store.Put{{Key: "a/1", Value: []byte("one")}, {Key: "a/2", Value: []byte("two")}}})
	one, list := s.get("a/1"), s.list(store.Range{Prefix: "a/"})
	for i := range 200 { // whatever is lent moves on
		s.commit(store.Tx{Put: []store.Put{{Key: "a/1", Value: fmt.Appendf(nil, "%d", i)}, {Key: "a/2", Value: fmt.Appendf(nil, "-%d", i)}}})
	}
	s.equal("item got before", string(one.Value), "one")
	s.equal("item listed before", string(list[0].Value)+string(list[1].Value), "onetwo")
	_ = append(list[0].Value, "XXXXXX"...)
	s.equal("item listed after it", string(list[1].Value), "two")
	for _, item := range []store.Item{s.get("a/1"), s.list(store.Range{Prefix: "a/1"})[0]} {
		clear(item.Value)
		s.equal("stored value", string(s.get("a/1").Value), "199")
	}
}

var ordered = []string{"k/", "k/\x00", "k/\x00\xff", "k/1", "k/10", "k/2", "k/a", "k/a/b", "k/b", "k/\xfe", "k/\xff", "k/\xff\x00", "k/\xff\xff", "k/\xff\xff\xff"}

func (s *suite) putOrdered() {
	s.Helper()
	var tx store.Tx
	for _, key := range append([]string{"j/\xff\xff", "kk/1", "l/", "k0/x"}, ordered...) {
		tx.Put = append(tx.Put, store.Put{Key: key, Value: []byte("value of " + key)})
	}
	slices.Reverse(tx.Put)
	s.commit(tx)
}

func reversed(keys []string) []string {
	keys = slices.Clone(keys)
	slices.Reverse(keys)
	return keys
}

func (s *suite) listOrder() {
	s.putOrdered()
	s.equal("forward", s.keys(store.Range{Prefix: "k/"}), ordered)
	s.equal("reverse", s.keys(store.Range{Prefix: "k/", Reverse: true}), reversed(ordered))
	for _, item := range s.list(store.Range{Prefix: "k/"}) {
		s.equal("item of the list", item, store.Item{Key: item.Key, Value: []byte("value of " + item.Key), Rev: s.s.Rev()})
	}
	s.equal("of nothing", s.keys(store.Range{Prefix: "none/"}), []string{})
	s.equal("of nothing, reverse", s.keys(store.Range{Prefix: "none/", Reverse: true}), []string{})
	s.equal("of the backend's own", s.keys(store.Range{Prefix: "meta/"}), []string{})
}

func (s *suite) listPages() {
	s.putOrdered()
	for limit := 1; limit <= len(ordered)+1; limit++ {
		for _, reverse := range []bool{false, true} {
			got := []string{}
			for r := (store.Range{Prefix: "k/", Limit: limit, Reverse: reverse}); ; {
				page := s.keys(r)
				if len(page) > limit {
					s.Fatalf("a page of %d, the limit is %d", len(page), limit)
				}
				if len(page) == 0 {
					break
				}
				got = append(got, page...)
				r.After = page[len(page)-1]
			}
			want := ordered
			if reverse {
				want = reversed(ordered)
			}
			s.equal(fmt.Sprintf("pages of %d, reverse %v", limit, reverse), got, want)
		}
	}
	s.equal("default limit", len(s.list(store.Range{Prefix: "filler/"})), 1000)
	s.equal("a page beyond the default", len(s.list(store.Range{Prefix: "filler/", Limit: 1200})), 1200)
}

func (s *suite) listPrefixes() {
	s.putOrdered()
	under := func(prefix string, from, to string) []string {
		keys := []string{}
		for _, key := range ordered {
			if strings.HasPrefix(key, prefix) && (from == "" || key > from) && (to == "" || key < to) {
				keys = append(keys, key)
			}
		}
		return keys
	}
	for _, prefix := range []string{"k/", "k/1", "k/a", "k/a/", "k/\x00", "k/\xfe", "k/\xff", "k/\xff\xff", "k/\xff\xff\xff", "k/none", "k/zz", "k/\xff\xff\xff\xff"} {
		s.equal(fmt.Sprintf("%q", prefix), s.keys(store.Range{Prefix: prefix}), under(prefix, "", ""))
		s.equal(fmt.Sprintf("%q reverse", prefix), s.keys(store.Range{Prefix: prefix, Reverse: true}), reversed(under(prefix, "", "")))
		for _, after := range append([]string{"k/0", "k/15", "k/zzz", "k/\xff\xff\xff\xff\xff"}, ordered...) {
			r := store.Range{Prefix: prefix, After: after}
			s.equal(fmt.Sprintf("%q after %q", prefix, after), s.keys(r), under(prefix, after, ""))
			r.Reverse = true
			s.equal(fmt.Sprintf("%q after %q reverse", prefix, after), s.keys(r), reversed(under(prefix, "", after)))
		}
	}
}

func (s *suite) readInvalid() {
	for _, key := range []string{"", "/", "/x", "nokind", "k\xff/x", "k/" + strings.Repeat("x", store.MaxKeyLen-1)} {
		if _, err := s.s.Get(s.ctx, key); !errors.Is(err, store.ErrInvalid) {
			s.Errorf("Get(%.20q): %v, want ErrInvalid", key, err)
		}
	}
	for _, r := range []store.Range{{}, {Prefix: "k"}, {Prefix: "/"}, {Prefix: "k/", Limit: -1}, {Prefix: "k/", After: "l/1"}} {
		if _, err := s.s.List(s.ctx, r); !errors.Is(err, store.ErrInvalid) {
			s.Errorf("List(%+v): %v, want ErrInvalid", r, err)
		}
	}
	s.absent("meta/state")
	gone, cancel := context.WithCancel(s.ctx)
	cancel()
	if _, err := s.s.Get(gone, "filler/00001"); !errors.Is(err, context.Canceled) {
		s.Errorf("Get with an ended context: %v", err)
	}
	if _, err := s.s.List(gone, store.Range{Prefix: "filler/"}); !errors.Is(err, context.Canceled) {
		s.Errorf("List with an ended context: %v", err)
	}
}

func (s *suite) revisions() {
	fresh := s.fresh(s.T)
	s.equal("revision of an empty store", fresh.Rev(), store.Rev(0))
	last := s.s.Rev()
	for i := range 20 {
		rev := s.commit(store.Tx{Put: []store.Put{{Key: fmt.Sprintf("a/%d", i), Value: []byte("x")}, {Key: "a/same", Value: []byte("y")}}})
		if rev <= last {
			s.Fatalf("revision %d after %d", rev, last)
		}
		s.equal("Rev", s.s.Rev(), rev)
		s.equal("revision of the one", s.get(fmt.Sprintf("a/%d", i)).Rev, rev)
		s.equal("revision of the other", s.get("a/same").Rev, rev)
		last = rev
	}
}

func (s *suite) race() {
	for round := range 20 {
		key, won := fmt.Sprintf("race/%d", round), make([]store.Rev, 16)
		together(len(won), func(i int) {
			rev, err := s.s.Commit(s.ctx, store.Tx{If: at(key, 0), Put: put(key, fmt.Sprint(i))})
			if err != nil && !errors.Is(err, store.ErrConflict) {
				s.Errorf("Commit: %v", err)
			}
			won[i] = rev
		})
		item := s.get(key)
		for i, rev := range won {
			if wins := fmt.Sprint(i) == string(item.Value); wins != (rev != 0) || wins && rev != item.Rev {
				s.Fatalf("creator %d got revision %d, the item is of %s at %d", i, rev, item.Value, item.Rev)
			}
		}
	}
}

func (s *suite) counter() {
	const workers, each = 8, 25
	together(workers, func(int) {
		for range each {
			if _, err := store.Update(s.ctx, s.s, "n/counter", func(old []byte) ([]byte, error) {
				return append(old, '+'), nil
			}); err != nil {
				s.Errorf("Update: %v", err)
			}
		}
	})
	s.equal("count", len(s.get("n/counter").Value), workers*each)
}

func (s *suite) update() {
	var olds []string
	step := func(value []byte) store.Rev {
		s.Helper()
		rev, err := store.Update(s.ctx, s.s, "u/1", func(old []byte) ([]byte, error) {
			olds = append(olds, fmt.Sprintf("%v %s", old == nil, old))
			return value, nil
		})
		if err != nil {
			s.Fatalf("Update: %v", err)
		}
		return rev
	}
	before := s.s.Rev()
	s.equal("deleting nothing", step(nil), store.Rev(0))
	s.equal("revision after it", s.s.Rev(), before)
	s.equal("creating", step([]byte("one")), s.get("u/1").Rev)
	s.equal("emptying", step([]byte{}), s.get("u/1").Rev)
	s.equal("deleting", step(nil), s.s.Rev())
	s.absent("u/1")
	s.equal("what change saw", olds, []string{"true ", "true ", "false one", "false "})
	refusal := errors.New("refusal")
	if _, err := store.Update(s.ctx, s.s, "u/1", func([]byte) ([]byte, error) { return []byte("x"), refusal }); !errors.Is(err, refusal) {
		s.Fatalf("Update = %v, want the refusal", err)
	}
	s.absent("u/1")
}

// together runs fn n times at once and waits for all.
func together(n int, fn func(i int)) {
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { fn(i) })
	}
	group.Wait()
}
