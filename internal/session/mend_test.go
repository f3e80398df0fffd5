package session_test

import (
	"testing"

	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
)

// What becomes of a key of a salvaged store whose record may be of before something
// that the log still has.
func TestMend(t *testing.T) {
	for name, tt := range map[string]struct {
		happens  func(w *world, key api.ID, token string)
		doubtful bool // the record is of before that; else only an end may be lost
		lives    bool
	}{
		"nothing":           {nil, true, true},
		"no end":            {nil, false, true},
		"it ended":          {(*world).ends, true, false},
		"its end is lost":   {(*world).ends, false, false},
		"it was rotated":    {func(w *world, _ api.ID, token string) { w.rotate(token) }, true, false},
		"it was altered":    {(*world).alters, true, false},
		"it is the present": {(*world).alters, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, unlimited())
			key, token := w.issued("ann", permanent)
			records := []string{"sess/" + string(key.Handle[:]), "end/" + string(key.Handle[:])}
			before, err := w.inner.Get(t.Context(), records[0])
			if err != nil {
				t.Fatal(err)
			}
			if tt.happens != nil {
				tt.happens(w, key.Handle, token)
			}
			damaged := copied(t, w.inner)
			tx := store.Tx{Delete: records[1:]}
			if tt.doubtful {
				tx.Put = []store.Put{{Key: before.Key, Value: before.Value}}
			}
			if _, err := damaged.Commit(t.Context(), tx); err != nil {
				t.Fatal(err)
			}
			_, err = session.Mend(t.Context(), session.Mending{
				Store: damaged, Clock: w.clock, LogWhole: true,
				Lost:     func(key string) bool { return key == records[1] },
				Touched:  func(kind string) bool { return kind == "sess" || kind == "end" },
				Doubtful: func(key string) bool { return tt.doubtful && key == records[0] },
			})
			if err != nil {
				t.Fatal(err)
			}
			w = newWorldOn(t, unlimited(), damaged, damaged)
			if w.lives(token) != tt.lives {
				t.Errorf("the key lives: %v, want %v", !tt.lives, tt.lives)
			}
		})
	}
}

// Where nothing can be known everything ends, many at a time.
func TestMendEndsMany(t *testing.T) {
	const many = 2*store.MaxOps + 1
	w := newWorld(t, unlimited())
	var tokens []string
	for range many {
		_, token := w.issued("ann", permanent)
		tokens = append(tokens, token)
	}
	damaged := copied(t, w.inner)
	before := damaged.Rev()
	no := func(string) bool { return false }
	done, err := session.Mend(t.Context(), session.Mending{
		Store: damaged, Clock: w.clock, Lost: no, Doubtful: no,
		Touched: func(kind string) bool { return kind == "epoch" },
	})
	if commits := damaged.Rev() - before; err != nil || done.Ended != many || commits > 10 {
		t.Errorf("%d were ended in %d commits: %v", done.Ended, commits, err)
	}
	w = newWorldOn(t, unlimited(), damaged, damaged)
	for i, token := range tokens {
		if w.lives(token) {
			t.Errorf("key %d lives", i)
		}
	}
}

func (w *world) alters(key api.ID, _ string) {
	w.t.Helper()
	w.do(w.Alter(w.ctx(), key, event.Actor{}, func(r *session.Record) error {
		r.Description = "another"
		return nil
	}))
}
