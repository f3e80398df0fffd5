package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"sessiond/store"
)

// replay is a projection that keeps copies of all changes, and a map that they
// were applied to.
type replay struct {
	mu      sync.Mutex
	changes []store.Change
	items   map[string]store.Item
}

func (r *replay) apply(c store.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	own := store.Change{Rev: c.Rev, Delete: slices.Clone(c.Delete)}
	for _, item := range c.Put {
		item.Value = append([]byte{}, item.Value...)
		own.Put = append(own.Put, item)
		r.items[item.Key] = item
	}
	for _, key := range c.Delete {
		delete(r.items, key)
	}
	for _, e := range c.Entries {
		e.Data = bytes.Clone(e.Data)
		own.Entries = append(own.Entries, e)
	}
	r.changes = append(r.changes, own)
}

func (r *replay) last() store.Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.changes) == 0 {
		return store.Change{}
	}
	return r.changes[len(r.changes)-1]
}

func (s *suite) watching() (*replay, func()) {
	s.Helper()
	r := &replay{items: map[string]store.Item{}}
	stop, err := s.s.Watch(s.s.Rev(), r.apply)
	if err != nil {
		s.Fatalf("Watch: %v", err)
	}
	return r, stop
}

func (s *suite) watch() {
	r, stop := s.watching()
	defer stop()
	head := s.head()
	for i := range 10 {
		tx := store.Tx{
			Put:    []store.Put{{Key: "w/b", Value: fmt.Appendf(nil, "b %d", i)}, {Key: fmt.Sprintf("w/%d", i), Value: []byte("new")}},
			Delete: []string{fmt.Sprintf("w/%d", i-1), "w/never"},
			Append: [][]byte{fmt.Appendf(nil, "log %d", i), []byte("and another")},
			Urgent: i%2 == 0,
		}
		rev := s.commit(tx)
		want := store.Change{Rev: rev}
		for _, p := range tx.Put {
			want.Put = append(want.Put, store.Item{Key: p.Key, Value: p.Value, Rev: rev})
		}
		if i > 0 { // what was not there is not gone
			want.Delete = tx.Delete[:1]
		}
		for _, data := range tx.Append {
			head = head.Next(data)
			want.Entries = append(want.Entries, store.Entry{Seq: head.Seq, Hash: head.Hash, Data: data})
		}
		s.equal("change", r.last(), want)
		s.refused(store.Tx{If: at("w/b", 0), Put: put("w/b", "no")}, store.ErrConflict)
		s.equal("change after a conflict", r.last(), want)
	}
}

func (s *suite) watchMany() {
	r, stop := s.watching()
	defer stop()
	second, stopSecond := s.watching()
	defer stopSecond()
	first := s.s.Rev()
	together(8, func(i int) {
		for j := range 20 {
			key := fmt.Sprintf("w/%d", (i+j)%5)
			rev, err := s.s.Commit(s.ctx, store.Tx{Put: put(key, fmt.Sprintf("%d %d", i, j)), Append: [][]byte{fmt.Appendf(nil, "%s %d %d", key, i, j)}})
			if err != nil {
				s.Errorf("Commit: %v", err)
				return
			}
			if last := r.last().Rev; last < rev {
				s.Errorf("revision %d is answered, the watcher stands at %d", rev, last)
			}
			if s.s.Rev() < rev {
				s.Errorf("revision %d is answered, the store stands at %d", rev, s.s.Rev())
			}
		}
	})
	s.equal("changes", len(r.changes), 160)
	last, seq := first, s.head().Seq-160
	for _, c := range r.changes {
		if c.Rev <= last {
			s.Fatalf("revision %d after %d", c.Rev, last)
		}
		seq++
		s.equal("position", c.Entries[0].Seq, seq)
		s.equal("data", string(c.Entries[0].Data), c.Put[0].Key+" "+string(c.Put[0].Value))
		last = c.Rev
	}
	s.equal("the other watcher", second.changes, r.changes)
	for _, item := range s.list(store.Range{Prefix: "w/"}) {
		s.equal("projected "+item.Key, r.items[item.Key], item)
	}
}

func (s *suite) watchReads() {
	var seen []string
	stop, err := s.s.Watch(s.s.Rev(), func(c store.Change) {
		item, err := s.s.Get(s.ctx, c.Put[0].Key)
		if err != nil {
			s.Errorf("Get in a watcher: %v", err)
		}
		list, err := s.s.List(s.ctx, store.Range{Prefix: "w/"})
		if err != nil {
			s.Errorf("List in a watcher: %v", err)
		}
		seen = append(seen, fmt.Sprintf("%s %v %d", item.Value, item.Rev == c.Rev, len(list)))
	})
	if err != nil {
		s.Fatal(err)
	}
	defer stop()
	s.commit(store.Tx{Put: put("w/1", "one")})
	s.commit(store.Tx{Put: put("w/2", "two")})
	s.equal("what the watcher read", seen, []string{"one true 1", "two true 2"})
}

func (s *suite) watchGap() {
	rev := s.s.Rev()
	for _, after := range []store.Rev{rev - 1, 1, rev + 1} {
		if _, err := s.s.Watch(after, func(store.Change) { s.Error("called") }); !errors.Is(err, store.ErrGap) {
			s.Errorf("Watch(%d) at %d: %v, want ErrGap", after, rev, err)
		}
	}
	s.commit(store.Tx{Put: put("w/1", "x")})
	fresh := s.fresh(s.T)
	called := 0
	stop, err := fresh.Watch(0, func(store.Change) { called++ })
	if err != nil {
		s.Fatalf("Watch(0) of an empty store: %v", err)
	}
	defer stop()
	if _, err := fresh.Commit(s.ctx, store.Tx{Put: put("w/1", "x")}); err != nil {
		s.Fatal(err)
	}
	s.equal("calls", called, 1)
}

func (s *suite) watchStop() {
	r, stop := s.watching()
	other, stopOther := s.watching()
	defer stopOther()
	rev := s.commit(store.Tx{Put: put("w/1", "seen")})
	stop()
	stop()
	after := s.commit(store.Tx{Put: put("w/1", "not seen")})
	s.equal("the stopped one", r.last().Rev, rev)
	s.equal("the other", other.last().Rev, after)
	var stopSelf func()
	calls := 0
	stopSelf, err := s.s.Watch(s.s.Rev(), func(store.Change) { calls++; stopSelf() })
	if err != nil {
		s.Fatal(err)
	}
	s.commit(store.Tx{Put: put("w/1", "a")})
	s.commit(store.Tx{Put: put("w/1", "b")})
	s.equal("calls of one that stops itself", calls, 1)
}

func (s *suite) cancelled() {
	gone, cancel := context.WithCancel(s.ctx)
	cancel()
	if rev, err := s.s.Commit(gone, store.Tx{Put: put("x/gone", "x")}); !errors.Is(err, store.ErrBusy) || rev != 0 {
		s.Fatalf("Commit with an ended context = %d, %v, want ErrBusy", rev, err)
	}
	s.absent("x/gone")
	// Cancelled at all sorts of moments: done or not, but as it says.
	type outcome struct {
		rev store.Rev
		err error
	}
	const n = 200
	outcomes := make([]outcome, n)
	together(n, func(i int) {
		ctx, cancel := context.WithCancel(s.ctx)
		defer cancel()
		if i%2 == 0 {
			go cancel()
		}
		rev, err := s.s.Commit(ctx, store.Tx{Put: put(fmt.Sprintf("x/%d", i), "there")})
		outcomes[i] = outcome{rev, err}
	})
	s.commit(store.Tx{Put: put("x/after", "whatever waited is settled")})
	for i, o := range outcomes {
		key := fmt.Sprintf("x/%d", i)
		switch {
		case o.err == nil:
			s.equal(key, s.get(key), store.Item{Key: key, Value: []byte("there"), Rev: o.rev})
		case errors.Is(o.err, store.ErrBusy) && i%2 == 0:
			s.absent(key)
		default:
			s.Fatalf("Commit %d: %v", i, o.err)
		}
	}
}

func (s *suite) limits() {
	long := "k/" + strings.Repeat("x", store.MaxKeyLen-2)
	big := make([]byte, store.MaxValueLen)
	keys := func(n int) (conds []store.Cond, puts []store.Put, deletes []string) {
		for i := range n {
			key := fmt.Sprintf("k/%d", i)
			conds, puts, deletes = append(conds, store.Cond{Key: key}), append(puts, store.Put{Key: key, Value: []byte("x")}), append(deletes, key)
		}
		return conds, puts, deletes
	}
	conds, puts, deletes := keys(store.MaxOps + 1)
	before, rev := s.everything("k"), s.s.Rev()
	for name, tx := range map[string]store.Tx{
		"too many conditions":       {If: conds, Put: put("k/1", "x")},
		"too many puts":             {Put: puts},
		"too many deletes":          {Delete: deletes},
		"too many entries":          {Append: make([][]byte, store.MaxOps+1)},
		"too many changes together": {Put: puts[:50], Delete: deletes[50:100], Append: make([][]byte, 1)},
		"a key that is too long":    {Put: put(long+"x", "x")},
		"a value that is too long":  {Put: []store.Put{{Key: "k/1", Value: make([]byte, store.MaxValueLen+1)}}},
		"an entry that is too long": {Append: [][]byte{make([]byte, store.MaxValueLen+1)}},
		"no kind":                   {Put: put("nokind", "x")},
		"an empty kind":             {Put: put("/x", "x")},
		"a strange kind":            {Delete: []string{"a b/x"}},
		"no key in a condition":     {If: at("", 0)},
		"put twice":                 {Put: []store.Put{{Key: "k/1", Value: nil}, {Key: "k/1", Value: nil}}},
		"put and deleted":           {Put: put("k/1", "x"), Delete: []string{"k/1"}},
		"deleted twice among many":  {Put: puts[:20], Delete: []string{"k/50", "k/51", "k/50"}},
		"put into the log":          {Put: put(store.LogKey(1), "x")},
		"put into meta":             {Put: put("meta/x", "x")},
		"deleted from meta":         {Delete: []string{"meta/state"}},
		"a condition on meta":       {If: at("meta/state", 0)},
		"no position of the log":    {Delete: []string{"log/1"}},
	} {
		if got, err := s.s.Commit(s.ctx, tx); !errors.Is(err, store.ErrInvalid) || got != 0 {
			s.Errorf("%s: Commit = %d, %v, want ErrInvalid", name, got, err)
		}
	}
	s.equal("all items", s.everything("k"), before)
	s.equal("revision", s.s.Rev(), rev)

	s.commit(store.Tx{If: conds[:store.MaxOps], Put: puts[:50], Delete: deletes[50:99], Append: [][]byte{big}})
	s.commit(store.Tx{Put: []store.Put{{Key: long, Value: big}}})
	s.equal("the longest value at the longest key", len(s.get(long).Value), store.MaxValueLen)
	s.equal("the kind of the longest name", len(s.list(store.Range{Prefix: "k/"})), 51)
}

func (s *suite) urgent() {
	rev := s.commit(store.Tx{Urgent: true, If: at("a/1", 0), Put: put("a/1", "urgent"), Append: [][]byte{[]byte("u")}})
	s.equal("item", s.get("a/1"), store.Item{Key: "a/1", Value: []byte("urgent"), Rev: rev})
	together(20, func(i int) {
		for j := range 10 {
			if _, err := s.s.Commit(s.ctx, store.Tx{Urgent: i%2 == 0, Put: put(fmt.Sprintf("a/%d-%d", i, j), "x")}); err != nil {
				s.Errorf("Commit: %v", err)
			}
		}
	})
	s.equal("items", len(s.list(store.Range{Prefix: "a/"})), 201)
	s.refused(store.Tx{Urgent: true, If: at("a/1", 0), Put: put("a/1", "again")}, store.ErrConflict)
}

func (s *suite) closed() {
	fresh := s.fresh(s.T)
	var group sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for i := range 50 {
		group.Go(func() {
			_, err := fresh.Commit(s.ctx, store.Tx{Put: put(fmt.Sprintf("a/%d", i), "x")})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				done++
			} else if !errors.Is(err, store.ErrStopped) {
				s.Errorf("Commit beside Close: %v, want none or ErrStopped", err)
			}
		})
	}
	for range 2 {
		if err := fresh.Close(); err != nil {
			s.Errorf("Close: %v", err)
		}
	}
	group.Wait()
	s.equal("revision", fresh.Rev(), store.Rev(done))
	if rev, err := fresh.Commit(s.ctx, store.Tx{Put: put("a/late", "x")}); !errors.Is(err, store.ErrStopped) || rev != 0 {
		s.Fatalf("Commit after Close = %d, %v, want ErrStopped", rev, err)
	}
}
