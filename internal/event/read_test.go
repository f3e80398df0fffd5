package event_test

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/store"
	"sessiond/store/mem"
)

var morning = time.Date(2026, 3, 2, 8, 15, 0, 0, time.UTC)

// small is a log of eight events, the positions being those of the comments.
func small() []event.Event {
	by := event.Actor{SessionHandle: "sh_admin", Realm: "native", Username: "admin"}
	return []event.Event{
		{Kind: event.SessionCreated, SessionHandle: "sh_a", Realm: "web", Username: "ann"},           // 1
		{Kind: event.SessionCreated, SessionHandle: "sh_b", Realm: "web", Username: "bob"},           // 2
		{Kind: event.SessionAltered, SessionHandle: "sh_a", Realm: "web", Username: "ann", By: by},   // 3
		{Kind: event.SessionEnded, SessionHandle: "sh_b", Realm: "web", Username: "bob", By: by},     // 4
		{Kind: event.LoginFailed, Realm: "native", Count: 3},                                         // 5
		{Kind: event.SessionCreated, SessionHandle: "sh_c", Realm: "native", Username: "ann"},        // 6
		{Kind: event.SessionEnded, SessionHandle: "sh_a", Realm: "web", Username: "ann", Reason: ""}, // 7
		{Kind: event.SessionAltered}, // 8
	}
}

func TestRead(t *testing.T) {
	at := func(minute int) time.Time { return morning.Add(time.Duration(minute) * time.Minute) }
	for _, tt := range []struct {
		why   string
		query event.Query
		want  []uint64
	}{
		{"newest first", event.Query{}, []uint64{8, 7, 6, 5, 4, 3, 2, 1}},
		{"oldest first", event.Query{Oldest: true}, []uint64{1, 2, 3, 4, 5, 6, 7, 8}},
		{"of a kind", event.Query{Kinds: []event.Kind{event.SessionEnded}}, []uint64{7, 4}},
		{"of two kinds", event.Query{Kinds: []event.Kind{event.SessionEnded, event.LoginFailed}, Oldest: true}, []uint64{4, 5, 7}},
		{"about a session", event.Query{SessionHandle: "sh_a"}, []uint64{7, 3, 1}},
		{"by a session", event.Query{SessionHandle: "sh_admin"}, []uint64{4, 3}},
		{"in a realm", event.Query{Realm: "native"}, []uint64{6, 5}},
		{"about a user", event.Query{Username: is("ann")}, []uint64{7, 6, 3, 1}},
		{"about a user in a realm", event.Query{Username: is("ann"), Realm: "web"}, []uint64{7, 3, 1}},
		{"after", event.Query{After: at(6)}, []uint64{8, 7}},
		{"before", event.Query{Before: at(3)}, []uint64{2, 1}},
		{"between", event.Query{After: at(2), Before: at(5)}, []uint64{4, 3}},
		{"between, oldest first", event.Query{After: at(2), Before: at(5), Oldest: true}, []uint64{3, 4}},
		{"all at once", event.Query{Kinds: []event.Kind{event.SessionCreated}, Realm: "web", Username: is("bob"), SessionHandle: "sh_b", After: at(1), Before: at(3)}, []uint64{2}},
		{"nothing", event.Query{Username: is("nobody")}, nil},
		{"a moment that is none", event.Query{After: at(5), Before: at(5)}, nil},
	} {
		s := logOf(t, small()...)
		for _, limit := range []int{0, 1, 2, 3, 8, 1000} {
			q := tt.query
			q.Limit = limit
			if got := readAll(t, s, q); !slices.Equal(got, tt.want) {
				t.Errorf("%s, in pages of %d: %v, want %v", tt.why, limit, got, tt.want)
			}
		}
	}
}

func TestReadGivesTheWholeEvent(t *testing.T) {
	want := event.Event{
		Time: morning, Kind: event.SessionEnded, SessionHandle: "sh_a", AccountID: "id", Realm: "web", Username: "ann", ClientIPAddress: "192.0.2.1",
		Status: "revoked", Reason: "\"<stolen>\"", Permanent: true, Count: 1 << 60, Expires: morning.Add(time.Hour), NoticeSeconds: 3600, Role: "clerk", Service: "http8080", Changed: []string{"roles", "enabled"}, By: event.Actor{SessionHandle: "sh_b", Realm: "native", Username: "admin"},
	}
	for v, i := reflect.ValueOf(want), 0; i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("%s is zero", v.Type().Field(i).Name)
		}
	}
	page, next, err := event.Read(t.Context(), logOf(t, want), event.Query{})
	if err != nil || next != "" {
		t.Fatal(next, err)
	}
	if diff := cmp.Diff([]event.Logged{{Seq: 1, Event: want}}, page); diff != "" {
		t.Error(diff)
	}
}

// Times are given before commits wait for their turn: a later event may be a
// little older, and is found all the same.
func TestReadOfTimesInDisorder(t *testing.T) {
	second := func(s int) event.Event {
		return event.Event{Kind: event.SessionCreated, Time: morning.Add(time.Duration(s) * time.Second)}
	}
	s := logOf(t, second(1), second(31), second(2), second(32), second(3), second(33))
	for _, tt := range []struct {
		query event.Query
		want  []uint64
	}{
		{event.Query{After: morning.Add(30 * time.Second)}, []uint64{6, 4, 2}},
		{event.Query{Before: morning.Add(30 * time.Second), Oldest: true}, []uint64{1, 3, 5}},
	} {
		if got := readAll(t, s, tt.query); !slices.Equal(got, tt.want) {
			t.Errorf("%+v: %v, want %v", tt.query, got, tt.want)
		}
	}
}

// A filter that fits little answers soon with a cursor, and finds what there is.
func TestReadLooksAtSoMuchAtOnce(t *testing.T) {
	list := make([]event.Event, 45_000)
	for i := range list {
		list[i] = event.Event{Kind: event.SessionCreated, Username: "ann"}
	}
	list[22_000].Username = "bob"
	s := logOf(t, list...)
	for _, oldest := range []bool{true, false} {
		calls, q := 0, event.Query{Username: is("bob"), Oldest: oldest}
		var got []uint64
		for {
			page, next, err := event.Read(t.Context(), s, q)
			if err != nil {
				t.Fatal(err)
			}
			for i := range page {
				got = append(got, page[i].Seq)
			}
			if calls++; next == "" {
				break
			}
			q.Cursor = next
		}
		if !slices.Equal(got, []uint64{22_001}) || calls != 3 {
			t.Errorf("%v in %d calls", got, calls)
		}
	}
}

func TestForgedCursors(t *testing.T) {
	s := logOf(t, small()...)
	_, newest, err := event.Read(t.Context(), s, event.Query{Limit: 2})
	if err != nil || newest == "" {
		t.Fatal(newest, err)
	}
	for _, tt := range []struct {
		oldest bool
		cursor string
	}{
		{true, newest}, // of the other direction
		{false, newest[1:]},
		{false, newest + " "},
		{false, "n"},
		{false, "n0"},
		{false, "n-1"},
		{false, "n+1"},
		{false, "n1.5"},
		{false, "n_1"},
		{false, "N7"},
		{false, "é"},
		{false, "n" + strconv.FormatUint(math.MaxUint64, 36) + "0"},
		{false, "x7"},
	} {
		_, _, err := event.Read(t.Context(), s, event.Query{Cursor: tt.cursor, Oldest: tt.oldest})
		if e := api.FromError(err); err == nil || e.Code != api.BadParam || e.Data.Pointer != "/params/cursor" {
			t.Errorf("%q: %v", tt.cursor, err)
		}
	}
	for _, cursor := range []string{"n1", "o" + strconv.FormatUint(math.MaxUint64, 36)} { // beyond the end is the end
		if page, next, err := event.Read(t.Context(), s, event.Query{Cursor: cursor, Oldest: cursor[0] == 'o'}); err != nil || next != "" || len(page) != 0 {
			t.Errorf("%s: %d events, %q, %v", cursor, len(page), next, err)
		}
	}
}

func FuzzCursor(f *testing.F) {
	f.Add("n7", false)
	f.Add("o1", true)
	f.Add("", true)
	f.Add("n\xff", false)
	f.Fuzz(func(t *testing.T, cursor string, oldest bool) {
		page, next, err := event.Read(t.Context(), logOf(t, small()...), event.Query{Cursor: cursor, Oldest: oldest, Limit: 2})
		if err != nil {
			if e := api.FromError(err); e.Code != api.BadParam {
				t.Fatalf("%q: %v", cursor, err)
			}
			return
		}
		if again, _, err := event.Read(t.Context(), logOf(t, small()...), event.Query{Cursor: next, Oldest: oldest}); next != "" && (err != nil || len(again) > 0 && again[0].Seq == page[0].Seq) {
			t.Fatalf("%q leads to %q: %v", cursor, next, err)
		}
	})
}

// Purging takes the old from the beginning and leaves an anchor, from which what
// is kept can be verified.
func TestPurge(t *testing.T) {
	const events = 250 // a minute apart
	list := make([]event.Event, events)
	for i := range list {
		list[i] = event.Event{Kind: event.SessionCreated, SessionHandle: fmt.Sprint("sh_", i+1)}
	}
	for _, tt := range []struct {
		before int // minutes
		first  uint64
	}{{0, 1}, {1, 1}, {2, 2}, {90, 90}, {91, 91}, {92, 92}, {181, 181}, {events, events}, {events + 1, events + 1}} {
		s := logOf(t, list...)
		head, err := store.VerifyLog(t.Context(), s, store.Head{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time there is nothing to do
			if err := event.Purge(t.Context(), s, morning.Add(time.Duration(tt.before)*time.Minute), always); err != nil {
				t.Fatal(err)
			}
		}
		anchor := store.Head{}
		if item, err := s.Get(t.Context(), store.AnchorKey); err == nil {
			if anchor, err = store.DecodeHead(item.Value); err != nil {
				t.Fatal(err)
			}
		}
		if anchor.Seq != tt.first-1 {
			t.Errorf("before minute %d: the anchor is %d, want %d", tt.before, anchor.Seq, tt.first-1)
		}
		if got, err := store.VerifyLog(t.Context(), s, anchor, nil); err != nil || got != head {
			t.Errorf("before minute %d: from the anchor the log reaches %d, %v", tt.before, got.Seq, err)
		}
		if left := readAll(t, s, event.Query{Oldest: true}); len(left) != events+1-int(tt.first) || len(left) > 0 && left[0] != tt.first {
			t.Errorf("before minute %d: %d are left", tt.before, len(left))
		}
	}
}

// Events of a clock that was ahead go with the next one that is older, however many
// they are, and nothing younger goes with them.
func TestPurgeOfTimesThatAreAhead(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, tt := range []struct {
		name             string
		old, ahead, then int    // events
		first            uint64 // of those that are left
	}{
		{"none", 3, 0, 3, 7},
		{"some", 3, 5, 3, 12},
		{"more than go at once", 3, 700, 3, 707},
		{"at the beginning", 0, 200, 1, 202},
		{"before nothing that is older", 3, 200, 0, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var list []event.Event
			add := func(n int, at time.Duration) {
				for range n {
					list = append(list, event.Event{Kind: event.SessionCreated, Time: morning.Add(at)})
				}
			}
			add(tt.old, -2*time.Hour)
			add(tt.ahead, year)
			add(tt.then, -2*time.Hour)
			add(2, 0) // within the retention
			s := logOf(t, list...)
			if err := event.Purge(t.Context(), s, morning.Add(-time.Hour), always); err != nil {
				t.Fatal(err)
			}
			if left := readAll(t, s, event.Query{Oldest: true}); len(left) == 0 || left[0] != tt.first {
				t.Errorf("%v are left, want from %d on", left[:min(3, len(left))], tt.first)
			}
		})
	}
}

func TestADamagedEventIsAnError(t *testing.T) {
	s := mem.New()
	if _, err := s.Commit(t.Context(), store.Tx{Append: [][]byte{[]byte("{")}}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := event.Read(t.Context(), s, event.Query{}); err == nil {
		t.Error("it is read")
	}
	if err := event.Purge(t.Context(), s, morning, always); err == nil {
		t.Error("it is purged")
	}
}

// logOf returns a store whose log has the events, those without a time a minute
// apart, from the first minute on.
func logOf(t *testing.T, list ...event.Event) store.Store {
	t.Helper()
	s := mem.New()
	var tx store.Tx
	for i, e := range list {
		if e.Time.IsZero() {
			e.Time = morning.Add(time.Duration(i+1) * time.Minute)
		}
		event.Append(&tx, e)
		if len(tx.Append) == store.MaxOps || i == len(list)-1 {
			if _, err := s.Commit(t.Context(), tx); err != nil {
				t.Fatal(err)
			}
			tx = store.Tx{}
		}
	}
	return s
}

// readAll follows the cursors and returns the positions.
func readAll(t *testing.T, s store.Store, q event.Query) (all []uint64) {
	t.Helper()
	for range 1000 {
		page, next, err := event.Read(t.Context(), s, q)
		if err != nil || q.Limit > 0 && len(page) > q.Limit {
			t.Fatalf("a page of %d at a limit of %d, %v", len(page), q.Limit, err)
		}
		for i := range page {
			all = append(all, page[i].Seq)
		}
		if next == "" {
			return all
		}
		q.Cursor = next
	}
	t.Fatal("the cursors do not end")
	return nil
}

func is(name string) func(string) bool { return func(shown string) bool { return shown == name } }

// always has a purge go on to its end.
func always() bool { return true }
