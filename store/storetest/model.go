package storetest

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"sessiond/store"
)

// model is a store as a map, for rapid to compare with.
type model struct {
	s     store.Store
	t     *testing.T
	items map[string]store.Item
	head  store.Head
	rev   store.Rev
	seen  *replay
}

func (s *suite) model() {
	rapid.Check(s.T, func(rt *rapid.T) {
		m := &model{s: s.open(s.T), t: s.T, items: map[string]store.Item{}, seen: &replay{items: map[string]store.Item{}}}
		defer func() {
			if err := m.s.Close(); err != nil {
				rt.Errorf("Close: %v", err)
			}
		}()
		if _, err := m.s.Watch(0, m.seen.apply); err != nil {
			rt.Fatalf("Watch: %v", err)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"commit": m.commit,
			"get":    m.get,
			"list":   m.list,
			"":       m.check,
		})
	})
}

func key(rt *rapid.T) string {
	return rapid.StringMatching(`[ab]/[a\x00ÿ]{0,2}`).Draw(rt, "key")
}

func (m *model) commit(rt *rapid.T) {
	value := rapid.SliceOfN(rapid.Byte(), 0, 40)
	var tx store.Tx
	for _, k := range rapid.SliceOfN(rapid.Custom(key), 0, 3).Draw(rt, "conditions") {
		rev := m.items[k].Rev
		if rapid.IntRange(0, 9).Draw(rt, "spoil") == 0 {
			rev++
		}
		tx.If = append(tx.If, store.Cond{Key: k, Rev: rev})
	}
	for _, k := range rapid.SliceOfNDistinct(rapid.Custom(key), 0, 5, rapid.ID).Draw(rt, "changes") {
		if rapid.Bool().Draw(rt, "delete") {
			tx.Delete = append(tx.Delete, k)
		} else {
			tx.Put = append(tx.Put, store.Put{Key: k, Value: value.Draw(rt, "value")})
		}
	}
	for range rapid.IntRange(0, 2).Draw(rt, "entries") {
		tx.Append = append(tx.Append, value.Draw(rt, "entry"))
	}
	tx.Urgent = rapid.Bool().Draw(rt, "urgent")

	rev, err := m.s.Commit(m.t.Context(), tx)
	if slices.ContainsFunc(tx.If, func(c store.Cond) bool { return m.items[c.Key].Rev != c.Rev }) {
		if !errors.Is(err, store.ErrConflict) {
			rt.Fatalf("Commit = %d, %v, want ErrConflict", rev, err)
		}
		return
	}
	if err != nil || rev <= m.rev {
		rt.Fatalf("Commit = %d, %v, want a revision beyond %d", rev, err, m.rev)
	}
	m.rev = rev
	for _, k := range tx.Delete {
		delete(m.items, k)
	}
	for _, p := range tx.Put {
		m.items[p.Key] = store.Item{Key: p.Key, Value: p.Value, Rev: rev}
	}
	for _, data := range tx.Append {
		m.head = m.head.Next(data)
	}
}

func (m *model) get(rt *rapid.T) {
	k := key(rt)
	got, err := m.s.Get(m.t.Context(), k)
	want, ok := m.items[k]
	if ok != (err == nil) || !ok && !errors.Is(err, store.ErrNotFound) {
		rt.Fatalf("Get(%q): %v, is it there: %v", k, err, ok)
	}
	same(rt, "item", got, want)
}

func (m *model) list(rt *rapid.T) {
	r := store.Range{
		Prefix:  key(rt),
		Limit:   rapid.IntRange(0, 3).Draw(rt, "limit"),
		Reverse: rapid.Bool().Draw(rt, "reverse"),
	}
	if rapid.Bool().Draw(rt, "after") {
		r.After = r.Prefix[:2] + rapid.StringMatching(`[a\x00ÿ]{0,3}`).Draw(rt, "rest")
	}
	want := []store.Item{}
	keys := slices.Sorted(maps.Keys(m.items))
	if r.Reverse {
		slices.Reverse(keys)
	}
	for _, k := range keys {
		beyond := r.After == "" || k > r.After != r.Reverse && k != r.After
		if strings.HasPrefix(k, r.Prefix) && beyond && (r.Limit == 0 || len(want) < r.Limit) {
			want = append(want, m.items[k])
		}
	}
	got, err := m.s.List(m.t.Context(), r)
	if err != nil {
		rt.Fatalf("List(%+v): %v", r, err)
	}
	same(rt, "list", got, want)
}

// check holds after every step.
func (m *model) check(rt *rapid.T) {
	same(rt, "revision", m.s.Rev(), m.rev)
	same(rt, "projection", m.seen.items, m.items)
	same(rt, "revision of the projection", m.seen.last().Rev, m.rev)
	head, err := store.VerifyLog(m.t.Context(), m.s, store.Head{}, nil)
	if err != nil {
		rt.Fatalf("VerifyLog: %v", err)
	}
	same(rt, "head of the log", head, m.head)
}

func same(rt *rapid.T, what string, got, want any) {
	rt.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		rt.Fatalf("%s (-want +got):\n%s", what, diff)
	}
}
