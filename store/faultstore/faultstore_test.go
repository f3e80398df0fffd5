package faultstore_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"sessiond/store"
	"sessiond/store/faultstore"
	"sessiond/store/mem"
	"sessiond/store/storetest"
)

func TestWithoutFaultItIsAStore(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return faultstore.New(mem.New(), faultstore.Plan{}) })
}

// story makes five calls and returns the error of each.
func story(ctx context.Context, s store.Store) []error {
	var errs []error
	add := func(err error) { errs = append(errs, err) }
	_, err := s.Commit(ctx, store.Tx{Put: []store.Put{{Key: "a/1", Value: []byte("one")}}})
	add(err)
	_, err = s.Get(ctx, "a/1")
	add(err)
	_, err = s.List(ctx, store.Range{Prefix: "a/"})
	add(err)
	_, err = s.Commit(ctx, store.Tx{Put: []store.Put{{Key: "a/2", Value: []byte("two")}}})
	add(err)
	_, err = s.Get(ctx, "a/2")
	add(err)
	return errs
}

func TestSweep(t *testing.T) {
	for _, test := range []struct {
		name string
		plan faultstore.Plan
		want string // what becomes of the five calls: . fine, F failed, N not found
		rev  store.Rev
	}{
		{"none", faultstore.Plan{}, ".....", 2},
		{"first", faultstore.Plan{Call: 1}, "FN..." /* the get finds nothing */, 1},
		{"second", faultstore.Plan{Call: 2}, ".F...", 2},
		{"third", faultstore.Plan{Call: 3}, "..F..", 2},
		{"fourth", faultstore.Plan{Call: 4}, "...FN", 1},
		{"fifth", faultstore.Plan{Call: 5}, "....F", 2},
		{"sixth never comes", faultstore.Plan{Call: 6}, ".....", 2},
		{"second commit", faultstore.Plan{Call: 2, Op: faultstore.Commit}, "...FN", 1},
		{"second commit, answer lost", faultstore.Plan{Call: 2, Op: faultstore.Commit, After: true}, "...F.", 2},
		{"second get, answer lost", faultstore.Plan{Call: 2, Op: faultstore.Get, After: true}, "....F", 2},
		{"only list", faultstore.Plan{Call: 1, Op: faultstore.List}, "..F..", 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			inner := mem.New()
			s := faultstore.New(inner, test.plan)
			got := ""
			for _, err := range story(t.Context(), s) {
				switch {
				case err == nil:
					got += "."
				case errors.Is(err, store.ErrNotFound):
					got += "N"
				case strings.Contains(err.Error(), faultstore.Canary):
					got += "F"
				default:
					t.Errorf("an error without the canary: %v", err)
				}
			}
			if got != test.want || inner.Rev() != test.rev {
				t.Errorf("calls %s, revision %d, want %s, %d", got, inner.Rev(), test.want, test.rev)
			}
			if s.Fired() != strings.Contains(got, "F") {
				t.Errorf("Fired = %v after %s", s.Fired(), got)
			}
			if s.Calls(0) != 5 || s.Calls(faultstore.Get) != 2 || s.Calls(faultstore.List) != 1 || s.Calls(faultstore.Commit) != 2 {
				t.Errorf("counted %d calls", s.Calls(0))
			}
		})
	}
}

func TestErrors(t *testing.T) {
	for _, test := range []struct {
		name string
		plan faultstore.Plan
		want error
	}{
		{"before, unknown", faultstore.Plan{Call: 1}, store.ErrUnknown},
		{"before, full", faultstore.Plan{Call: 1, Err: store.ErrFull}, store.ErrFull},
		{"after", faultstore.Plan{Call: 1, After: true}, store.ErrUnknown},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := faultstore.New(mem.New(), test.plan)
			if err := story(t.Context(), s)[0]; !errors.Is(err, test.want) {
				t.Errorf("Commit: %v, want %v", err, test.want)
			}
		})
	}
}

func TestOneCallFailsAmongMany(t *testing.T) {
	s := faultstore.New(mem.New(), faultstore.Plan{Call: 50})
	var group sync.WaitGroup
	var mu sync.Mutex
	failed := 0
	for range 100 {
		group.Go(func() {
			if _, err := s.Commit(t.Context(), store.Tx{Append: [][]byte{[]byte("x")}}); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed++
			}
		})
	}
	group.Wait()
	if failed != 1 || s.Calls(0) != 100 {
		t.Errorf("%d of %d calls failed, want 1 of 100", failed, s.Calls(0))
	}
}
