package session_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sessiond/internal/api"
	"sessiond/internal/session"
)

// Whatever is created and ended while a listing is under way, and whatever moves from
// one kind of key to another meanwhile: it shows each session once that is there all
// the time, none twice, and none that it is not about.
func TestListingsAreStable(t *testing.T) {
	const size = 900 // several chunks
	for _, tt := range []struct {
		name  string
		scan  session.Scan
		page  int // sessions, after which another scan goes on
		table bool
	}{
		{"at once", session.Scan{}, 10 * size, false},
		{"the newest first", session.Scan{Newest: true}, 10 * size, false},
		{"ended ones too", session.Scan{Ended: true}, 10 * size, false},
		{"ended ones too, the newest first", session.Scan{Ended: true, Newest: true}, 10 * size, false},
		{"in pages", session.Scan{}, 100, false},
		{"ended ones too, in pages", session.Scan{Ended: true}, 100, false},
		{"of the table", session.Scan{}, 10 * size, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, unlimited())
			var there []api.ID
			for i := range size {
				v, _ := w.issued(fmt.Sprint("user", i%50))
				there = append(there, v.Handle)
				if i%9 == 0 {
					w.advance(1)
				}
			}
			stays := func(i int) bool { return i%3 == 0 }
			next := 0
			disturb := func() { // ends one of those that do not stay, wherever the listing is
				for stays(next * 7 % size) {
					next++
				}
				if _, err := w.end(there[next*7%size]); err != nil {
					t.Fatal(err)
				}
				next++
				w.issued("newcomer")
				if next%5 == 0 {
					if err := w.FoldEnds(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			seen := map[api.ID]int{}
			var order []api.ID
			look := func(v *session.View) bool {
				seen[v.Handle]++
				order = append(order, v.Handle)
				if len(order)%2 == 0 && next < size/2 {
					disturb()
				}
				return len(order)%tt.page != 0
			}
			for last := -1; last != len(order); {
				last = len(order)
				var err error
				if tt.table {
					err = w.EachLiving(t.Context(), look)
				} else {
					err = w.Each(t.Context(), tt.scan, look)
				}
				if err != nil {
					t.Fatal(err)
				}
				if len(order)%tt.page != 0 {
					break
				}
				tt.scan.After = order[len(order)-1]
			}
			for i, h := range there {
				if n := seen[h]; n > 1 || n == 0 && (stays(i) || tt.scan.Ended) {
					t.Errorf("session %d is shown %d times", i, n)
				}
			}
			if !tt.table && !slices.IsSortedFunc(order, func(a, b api.ID) int {
				if tt.scan.Newest {
					a, b = b, a
				}
				return slices.Compare(a[:], b[:])
			}) {
				t.Error("they are not in their order")
			}
			if next < 100 {
				t.Errorf("only %d were ended meanwhile: that was no test", next)
			}
		})
	}
}

// What the table knows of a session is what its record and the table say together.
func TestTheTableKnowsWhatListingsShow(t *testing.T) {
	w := newWorld(t, unlimited())
	w.issued("alice", idle(60), lifetime(600))
	w.issued("Bob", idle(0), in(w, "staff"))
	v, _ := w.issued("carol", idle(100), func(n *session.NewSession) {
		n.RememberMe = true
		n.Settings.DefaultAPI = "hub"
	})
	w.issued("carol", func(n *session.NewSession) { n.Permanent = true })
	w.advance(10)
	w.Touch(v.Handle)
	gone, _ := w.issued("dora")
	if _, err := w.end(gone.Handle); err != nil {
		t.Fatal(err)
	}
	w.issued("emil", idle(5))
	w.advance(6)

	shown := map[api.ID]session.View{}
	if err := w.Each(t.Context(), session.Scan{}, func(v *session.View) bool {
		shown[v.Handle] = v.Keep()
		return true
	}); err != nil {
		t.Fatal(err)
	}
	known := func(v session.View) session.View {
		r := *v.Record
		r.Prefix, r.Secrets, r.Description, r.Tolerance, r.AbandonAfter, r.CursorSeconds = "", nil, "", 0, 0, 0
		r.Address, r.UserAgent, r.Last, r.Epochs, r.Revision, r.Client = netip.Addr{}, "", session.Sighting{}, session.Epochs{}, 0, api.ID{}
		r.Properties, r.Sightings = nil, nil
		if r.Frozen != nil && r.Frozen.Ceiling {
			r.Frozen = nil
		}
		v.Record = &r
		return v
	}
	n := 0
	if err := w.EachLiving(t.Context(), func(v *session.View) bool {
		n++
		if diff := cmp.Diff(known(shown[v.Handle]), *v, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-listed +known):\n%s", v.Username, diff)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if n != len(shown) || n != 4 {
		t.Errorf("the table shows %d sessions, the listing %d, want 4", n, len(shown))
	}
}

// A view that is kept stays what it was while the scan goes on.
func TestKeptViewsLast(t *testing.T) {
	w := newWorld(t, unlimited())
	for i := range 300 {
		w.issued(fmt.Sprint("user", i))
	}
	var kept []session.View
	if err := w.Each(t.Context(), session.Scan{}, func(v *session.View) bool {
		kept = append(kept, v.Keep())
		return true
	}); err != nil {
		t.Fatal(err)
	}
	for i := range kept {
		want, err := w.Get(t.Context(), kept[i].Handle)
		if err != nil || !want.Equal(kept[i].Record) || want.Username != kept[i].Username {
			t.Errorf("session %d has become that of %s: %v", i, kept[i].Username, err)
		}
	}
}
