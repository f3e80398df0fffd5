package session_test

import (
	"errors"
	"slices"
	"testing"

	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/mem"
)

const day = 24 * 3600

// Each step lets time pass and says which notices there are then in all, by how many
// seconds before the end they were due.
func TestNotices(t *testing.T) {
	for _, tt := range []struct {
		why      string
		leads    []int64
		lifetime int64
		steps    []noticeStep
	}{
		{"each when it is due, and once", []int64{7 * day, day}, 30 * day, []noticeStep{
			{pass: 23*day - 1},
			{pass: 1, want: []int64{7 * day}},
			{pass: 6*day - 1, want: []int64{7 * day}},
			{pass: 1, want: []int64{7 * day, day}},
			{pass: day - 1, want: []int64{7 * day, day}},
		}},
		{"a key that was made with less left", []int64{7 * day, day}, 7 * day, []noticeStep{
			{pass: 6*day - 1},
			{pass: 1, want: []int64{day}},
		}},
		{"a key of an hour", []int64{7 * day, day}, 3600, []noticeStep{{pass: 3599}}},
		{"what was missed while the server stood still", []int64{7 * day, 2 * day, day}, 30 * day, []noticeStep{
			{pass: 29*day - 1, want: []int64{7 * day, 2 * day}},
			{pass: 1, want: []int64{7 * day, 2 * day, day}},
		}},
		{"other notices, on a running server", []int64{7 * day}, 30 * day, []noticeStep{
			{pass: 23 * day, want: []int64{7 * day}},
			{pass: day, reload: []int64{7 * day, 3 * day}, want: []int64{7 * day}},
			{pass: 3 * day, want: []int64{7 * day, 3 * day}},
			{pass: day, reload: []int64{}, want: []int64{7 * day, 3 * day}},
		}},
		{"none", nil, 30 * day, []noticeStep{{pass: 30*day - 1}}},
	} {
		for _, restarted := range []bool{false, true} {
			t.Run(tt.why, func(t *testing.T) {
				c := unlimited()
				c.ExpiringNoticeSeconds = tt.leads
				c.Defaults.RetentionPolicy = "neverPurge"
				w := newWorld(t, c)
				key := w.key(lifetime(tt.lifetime))
				w.issued("ann", lifetime(tt.lifetime)) // is not permanent
				w.key()                                // has no end
				for i, step := range tt.steps {
					if restarted {
						w.restart()
					}
					if step.reload != nil {
						w.config.ExpiringNoticeSeconds = step.reload
						w.Configure(w.config)
					}
					w.advance(step.pass)
					w.maintain()
					w.maintain()
					if got := w.notices(); !slices.Equal(got, step.want) {
						t.Errorf("restarted %v, step %d: %v, want %v", restarted, i+1, got, step.want)
					}
				}
				after, err := w.Get(t.Context(), key.Handle)
				if err != nil || after.Revision != key.Revision {
					t.Errorf("revision %d, %v, want %d", after.Revision, err, key.Revision)
				}
				w.recount()
			})
		}
	}
}

type noticeStep struct {
	reload []int64
	pass   int64
	want   []int64
}

// The event says what a program needs: whose key it is, and when its end is.
func TestANoticeSaysWhatIsNeeded(t *testing.T) {
	c := unlimited()
	c.ExpiringNoticeSeconds = []int64{3600}
	w := newWorld(t, c)
	key := w.key(lifetime(2 * 3600))
	w.advance(3700)
	w.maintain()
	log := w.events(key.Handle)
	e := log[len(log)-1]
	if e.Kind != event.SessionExpiring || e.AccountID != key.AccountID.String() || e.Username != "ann" || e.Realm != "web" ||
		!e.Permanent || e.NoticeSeconds != 3600 || e.Expires.Unix() != key.Created+2*3600 {
		t.Errorf("%+v", e)
	}
}

// What changes the key meanwhile, or ends it, neither loses a notice nor repeats
// it; nor does a store that fails.
func TestNoticesAmongOtherChanges(t *testing.T) {
	c := unlimited()
	c.ExpiringNoticeSeconds = []int64{day}
	inner := mem.New()
	var fail error
	var before func()
	h := &hook{Store: inner, before: func(*store.Tx) error {
		if do := before; do != nil {
			before = nil
			do()
		}
		return fail
	}}
	w := newWorldOn(t, c, inner, h)
	v, ended := w.key(lifetime(2*day)), w.key(lifetime(2*day))
	w.advance(day)
	if _, err := w.end(ended.Handle); err != nil {
		t.Fatal(err)
	}
	fail = store.ErrBusy
	if err := w.Maintain(t.Context()); !errors.Is(err, store.ErrBusy) {
		t.Fatal(err)
	}
	fail = nil
	before = func() {
		item, err := inner.Get(t.Context(), session.LiveKey(v.Handle))
		if err == nil {
			_, err = inner.Commit(t.Context(), store.Tx{Put: []store.Put{{Key: item.Key, Value: item.Value}}})
		}
		if err != nil {
			t.Error(err)
		}
	}
	w.maintain()
	w.maintain()
	if got := w.notices(); !slices.Equal(got, []int64{day}) {
		t.Errorf("%v", got)
	}
	w.recount()
}

// The notices of keys that end at one moment are given together; one that is changed
// meanwhile holds the others up for a moment only.
func TestNoticesOfManyKeys(t *testing.T) {
	const many = 500
	c := unlimited()
	c.ExpiringNoticeSeconds = []int64{2 * day, day}
	inner := mem.New()
	commits := 0
	var change func()
	w := newWorldOn(t, c, inner, &hook{Store: inner, before: func(*store.Tx) error {
		commits++
		if do := change; do != nil {
			change = nil
			do()
		}
		return nil
	}})
	keys := make([]session.View, many)
	for i := range keys {
		keys[i] = w.key(lifetime(3 * day))
	}
	w.advance(2 * day)
	commits = 0
	change = func() {
		item, err := inner.Get(t.Context(), session.LiveKey(keys[17].Handle))
		if err == nil {
			_, err = inner.Commit(t.Context(), store.Tx{Put: []store.Put{{Key: item.Key, Value: item.Value}}})
		}
		if err != nil {
			t.Error(err)
		}
	}
	w.maintain()
	if most := many/33 + 33 + 10; commits > most {
		t.Errorf("%d commits, want %d at the most", commits, most)
	}
	w.maintain()
	if n := len(w.notices()); n != 2*many {
		t.Errorf("%d notices, want %d", n, 2*many)
	}
	for _, key := range keys {
		told := slices.DeleteFunc(w.events(key.Handle), func(e event.Logged) bool { return e.Kind != event.SessionExpiring })
		if len(told) != 2 {
			t.Fatalf("%s: %+v", session.HandleText(key.Handle), told)
		}
	}
	w.recount()
}

// key returns an API key of ann's.
func (w *world) key(options ...option) session.View {
	w.t.Helper()
	v, _ := w.issued("ann", append(options, func(n *session.NewSession) { n.Permanent, n.Idle = true, 0 })...)
	return v
}

// notices returns by how much before their ends those that are in the log were due.
func (w *world) notices() (all []int64) {
	w.t.Helper()
	page, _, err := event.Read(w.ctx(), w.inner, event.Query{Kinds: []event.Kind{event.SessionExpiring}, Oldest: true})
	if err != nil {
		w.t.Fatalf("%v", err)
	}
	for i := range page {
		all = append(all, page[i].NoticeSeconds)
	}
	return all
}
