package session_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/mem"
)

// Each kind of death leaves its tombstone, and one event.
func TestTombstones(t *testing.T) {
	by := &session.Caller{Live: session.Live{Handle: handleOfVectors}}
	start := morning.Unix()
	const died = 40
	end := func(status session.Status, reason string, by *session.Caller) func(*world, *session.View) error {
		return func(w *world, v *session.View) error {
			_, err := w.End(w.ctx(), v.Handle, w.NewEnd(status, reason, by), event.Actor{})
			return err
		}
	}
	for _, tt := range []struct {
		why  string
		die  func(w *world, v *session.View) error
		want session.End
	}{
		{"a log-out", end(session.Ended, session.ReasonLogout, nil), session.End{Status: session.Ended, At: start + died, Reason: "logout"}},
		{"an administrator", end(session.Revoked, "stolen", by), session.End{Status: session.Revoked, At: start + died, Reason: "stolen", By: session.HandleText(by.Handle)}},
		{"idleness", func(w *world, v *session.View) error {
			w.Touch(v.Handle)
			w.advance(120)
			return nil
		}, session.End{Status: session.Expired, At: start + died + 120, Reason: "idleTimeout"}},
		{"its lifetime", func(w *world, v *session.View) error {
			for range 12 {
				w.Touch(v.Handle)
				w.advance(80)
			}
			return nil
		}, session.End{Status: session.Expired, At: start + 900, Reason: "sessionTimeout"}},
		{"its account", func(w *world, _ *session.View) error {
			_, err := w.EndAccount(w.ctx(), "web", "ann", false, &session.AccountChange{Reason: "revoked", By: event.Actor{SessionHandle: "sh_x"}})
			return err
		}, session.End{Status: session.Revoked, At: start + died, Reason: "revoked", By: "sh_x"}},
		{"its account, and idleness long after", func(w *world, _ *session.View) error {
			_, err := w.EndAccount(w.ctx(), "web", "ann", false, &session.AccountChange{Reason: "revoked"})
			w.advance(10_000)
			w.restart() // nobody swept meanwhile
			return err
		}, session.End{Status: session.Revoked, At: start + died, Reason: "revoked"}},
		{"its realm", func(w *world, _ *session.View) error {
			w.raise(session.RealmEpoch("web"), true)
			return nil
		}, session.End{Status: session.Revoked, At: start + died, Reason: "massLogout"}},
		{"the server", func(w *world, _ *session.View) error {
			w.raise(session.ServerEpoch, false)
			return nil
		}, session.End{Status: session.Revoked, At: start + died, Reason: "massLogout"}},
	} {
		t.Run(tt.why, func(t *testing.T) {
			w := newWorld(t, unlimited())
			v, _ := w.issued("ann", idle(120), lifetime(900), from("192.0.2.1"), func(n *session.NewSession) { n.Description = "on the train" })
			w.advance(died)
			if err := tt.die(w, &v); err != nil {
				t.Fatal(err)
			}
			before, err := w.Get(t.Context(), v.Handle)
			if err != nil || before.Live || before.End != tt.want {
				t.Errorf("before it is written: %+v, %v, want %+v", before.End, err, tt.want)
			}
			w.Touch(v.Handle) // too late: it was used before it died
			w.maintain()
			w.maintain()
			after, err := w.Get(t.Context(), v.Handle)
			if err != nil || after.Live || after.End != tt.want || after.LastAccess != before.LastAccess || after.Description != "on the train" || after.Username != "ann" {
				t.Errorf("%+v, %v, want %+v", after.Record, err, tt.want)
			}
			if n := w.keys(session.LiveKeys) + w.keys(session.EndKeys) + w.Table().Len(); n != 0 {
				t.Errorf("%d keys and entries are left", n)
			}
			log := w.events(v.Handle)
			kind := event.SessionEnded
			if tt.want.Status == session.Expired {
				kind = event.SessionExpired
			}
			if len(log) != 2 || log[0].Kind != event.SessionCreated || log[1].Kind != kind {
				t.Fatalf("the log has %+v", log)
			}
			e := log[1]
			if e.Status != tt.want.Status.String() || e.Reason != tt.want.Reason || e.ClientIPAddress != "192.0.2.1" || e.Realm != "web" || e.Username != "ann" || e.AccountID != v.AccountID.String() {
				t.Errorf("the event says %+v", e)
			}
			if e.Time.Before(log[0].Time) || e.Time.After(w.clock.Now()) {
				t.Errorf("the event is of %v", e.Time)
			}
			w.recount()
		})
	}
}

// Ends are folded and the dead are swept in commits that any store takes, and
// nobody is left behind.
func TestManyDeaths(t *testing.T) {
	inner := mem.New()
	biggest := 0
	h := &hook{Store: inner, before: func(tx *store.Tx) error {
		biggest = max(biggest, len(tx.If), len(tx.Put)+len(tx.Delete)+len(tx.Append))
		return nil
	}}
	w := newWorldOn(t, unlimited(), inner, h)
	var handles []api.ID
	for i := range 500 {
		v, _ := w.issued(fmt.Sprintf("user-%d", i%7), idle(60))
		handles = append(handles, v.Handle)
	}
	for _, h := range handles[:200] {
		if done, err := w.end(h); !done || err != nil {
			t.Fatal(done, err)
		}
	}
	w.advance(59)
	for _, h := range handles[490:] {
		w.Touch(h)
	}
	w.advance(1)
	w.maintain()
	if n := w.keys(session.PastKeys); n != 490 || w.keys(session.LiveKeys) != 10 || w.keys(session.EndKeys) != 0 || w.Count() != 10 {
		t.Errorf("%d tombstones, %d records, %d ends, %d live", n, w.keys(session.LiveKeys), w.keys(session.EndKeys), w.Count())
	}
	if biggest > store.MaxOps || biggest < 50 {
		t.Errorf("the biggest commit has %d parts", biggest)
	}
	w.recount()
}

// What others change while their tombstones are written is written later.
func TestSweepingRacesEnds(t *testing.T) {
	inner := mem.New()
	h := &hook{Store: inner}
	w := newWorldOn(t, unlimited(), inner, h)
	var handles []api.ID
	for range 50 {
		v, _ := w.issued("ann", idle(60))
		handles = append(handles, v.Handle)
	}
	w.advance(60)
	raced := false
	h.before = func(tx *store.Tx) error {
		if raced || !puts(tx, session.PastKeys) {
			return nil
		}
		raced = true // the record is touched by somebody who read it before
		_, err := store.Update(t.Context(), inner, session.LiveKey(handles[3]), func(old []byte) ([]byte, error) { return old, nil })
		return err
	}
	w.maintain()
	if n := w.keys(session.PastKeys); n != len(handles) || !raced {
		t.Errorf("%d tombstones of %d", n, len(handles))
	}
	w.recount()
}

// What cannot be written now is written later.
func TestMaintenanceTriesAgain(t *testing.T) {
	for _, kind := range []string{session.PastKeys, session.TouchKeys} {
		inner := mem.New()
		h := &hook{Store: inner}
		w := newWorldOn(t, unlimited(), inner, h)
		v, _ := w.issued("ann", idle(3600))
		ended, _ := w.issued("ann")
		expired, _ := w.issued("ann", idle(60))
		w.advance(60)
		w.Touch(v.Handle)
		if _, err := w.end(ended.Handle); err != nil {
			t.Fatal(err)
		}
		h.before = refuse(kind, store.ErrFull)
		for range 3 {
			if err := w.Maintenance(t.Context(), 5); err == nil {
				t.Fatalf("%s: no error", kind)
			}
		}
		if w.lives("") || w.Count() != 1 {
			t.Errorf("%s: %d live", kind, w.Count())
		}
		h.before = nil
		if err := w.Maintenance(t.Context(), 5); err != nil {
			t.Fatal(err)
		}
		for _, dead := range []api.ID{ended.Handle, expired.Handle} {
			if _, err := w.tombstone(dead); err != nil {
				t.Errorf("%s: no tombstone: %v", kind, err)
			}
		}
		w.restart()
		if live, ok := w.Living(session.Reach{All: true}, v.Handle); !ok || live.LastAccess != w.unix() {
			t.Errorf("%s: used last at %d, %v", kind, live.LastAccess, ok)
		}
	}
}

// An alteration that was on its way when the session died is as if it had not
// been: the session is not alive for the store and dead for readers.
func TestAnAlterationThatComesTooLate(t *testing.T) {
	inner := mem.New()
	h := &hook{Store: inner}
	w := newWorldOn(t, unlimited(), inner, h)
	v, token := w.issued("ann", idle(60))
	w.advance(59)
	h.before = func(*store.Tx) error {
		h.before = nil
		w.advance(1)
		w.Count() // by which its death is final
		return nil
	}
	if _, err := w.Alter(t.Context(), v.Handle, event.Actor{}, func(r *session.Record) error { r.IdleSeconds = 10_000; return nil }); err == nil {
		t.Error("it was altered")
	}
	w.maintain()
	w.recount()
	if _, err := w.tombstone(v.Handle); err != nil || w.lives(token) {
		t.Errorf("its tombstone: %v; alive: %v", err, w.lives(token))
	}
	w.restart()
	if w.lives(token) {
		t.Error("alive after a restart")
	}
}

// Last uses are written in blocks, each session's at most once per period, and
// folded into the records; a restart knows them.
func TestLastUses(t *testing.T) {
	inner := mem.New()
	blocks, uses := 0, map[api.ID]int{}
	h := &hook{Store: inner, before: func(tx *store.Tx) error {
		if !puts(tx, session.TouchKeys) {
			return nil
		}
		blocks++
		return session.ReadTouches(tx.Put[0].Value, func(h api.ID, _ uint32) { uses[h]++ })
	}}
	w := newWorldOn(t, unlimited(), inner, h)
	const sessions = 1500
	var handles []api.ID
	for range sessions {
		v, _ := w.issued("ann", idle(3600))
		handles = append(handles, v.Handle)
	}
	brief, _ := w.issued("ann", idle(40)) // a quarter of which is 10
	never, _ := w.issued("ann", idle(3600))
	start := w.unix()
	for range 300 {
		w.advance(1)
		for _, h := range append(handles, brief.Handle) {
			w.Touch(h)
		}
		if err := w.FlushTouches(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, h := range handles {
		if uses[h] != 5 {
			t.Fatalf("one was written %d times in 300 s", uses[h])
		}
	}
	if uses[brief.Handle] != 30 || uses[never.Handle] != 0 || blocks != 30+5 {
		t.Errorf("the brief one was written %d times, the unused %d; %d blocks", uses[brief.Handle], uses[never.Handle], blocks)
	}
	check := func(when string, least int64) {
		t.Helper()
		for h, least := range map[api.ID]int64{handles[0]: least, handles[sessions-1]: least, brief.Handle: least} {
			if live, ok := w.Living(session.Reach{All: true}, h); !ok || live.LastAccess < least || live.LastAccess > w.unix() {
				t.Errorf("%s: used last %d s ago, %v", when, w.unix()-live.LastAccess, ok)
			}
		}
		if live, _ := w.Living(session.Reach{All: true}, never.Handle); live.LastAccess != start {
			t.Errorf("%s: the unused one was used", when)
		}
		w.recount()
	}
	w.advance(9)
	w.Touch(handles[0])
	w.restart()
	check("from blocks", start+300)
	if err := w.FoldTouches(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := w.keys(session.TouchKeys); n != (sessions+1+999)/1000 {
		t.Errorf("%d blocks are left for %d sessions", n, sessions+1)
	}
	w.restart()
	check("from folded blocks", start+300)
}

// Folding a last use writes the record of a session that may have ended since:
// that must not bring it back.
func TestFoldingAUseRevivesNobody(t *testing.T) {
	for _, during := range []bool{false, true} {
		inner := mem.New()
		h := &hook{Store: inner}
		w := newWorldOn(t, unlimited(), inner, h)
		v, token := w.issued("ann", idle(3600))
		_, other := w.issued("ann", idle(3600)) // so that the account stays known
		w.advance(100)
		w.Authenticate(token, true)
		w.Authenticate(other, true)
		if err := w.FlushTouches(t.Context()); err != nil {
			t.Fatal(err)
		}
		end := func() {
			if done, err := w.end(v.Handle); !done || err != nil {
				t.Errorf("end: %v, %v", done, err)
			}
		}
		if during {
			h.before = func(*store.Tx) error {
				h.before = nil
				end()
				return nil
			}
		} else {
			end()
		}
		if err := w.FoldTouches(t.Context()); err != nil {
			t.Fatal(err)
		}
		if w.lives(token) || !w.lives(other) {
			t.Errorf("during %v: alive after its end: %v", during, w.lives(token))
		}
		w.restart()
		if live, ok := w.Authenticate(other, false); w.lives(token) || !ok || live.LastAccess != w.unix() {
			t.Errorf("during %v: alive after a restart: %v; the other: %v", during, w.lives(token), ok)
		}
		w.recount()
	}
}

// A record that was altered knows the last use; later ones are written again.
func TestUsesAfterAnAlteration(t *testing.T) {
	w := newWorld(t, unlimited())
	v, token := w.issued("ann", idle(3600))
	w.advance(100)
	w.Authenticate(token, true)
	if _, err := w.Alter(t.Context(), v.Handle, event.Actor{}, func(r *session.Record) error { r.Description = "x"; return nil }); err != nil {
		t.Fatal(err)
	}
	w.maintain()
	w.advance(100)
	w.Authenticate(token, true)
	if err := w.FlushTouches(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.restart()
	if live, ok := w.Authenticate(token, false); !ok || live.LastAccess != w.unix() {
		t.Errorf("used last %d s ago, %v", w.unix()-live.LastAccess, ok)
	}
}

// After the retention tombstones and events are forgotten; what is left of the
// log can still be verified, from the anchor on.
func TestPurge(t *testing.T) {
	w := newWorld(t, unlimited())
	var old, recent []api.ID
	for range 150 {
		v, _ := w.issued("ann")
		old = append(old, v.Handle)
		if _, err := w.end(v.Handle); err != nil {
			t.Fatal(err)
		}
	}
	_, stays := w.issued("ann")
	w.maintain()
	w.clock.Advance(27 * 24 * time.Hour)
	for range 5 {
		v, _ := w.issued("ann")
		recent = append(recent, v.Handle)
		if _, err := w.end(v.Handle); err != nil {
			t.Fatal(err)
		}
	}
	w.maintain()
	head, err := store.VerifyLog(t.Context(), w.inner, store.Head{}, nil)
	if err != nil || w.keys(session.PastKeys) != 155 {
		t.Fatalf("%d tombstones, %v", w.keys(session.PastKeys), err)
	}
	w.clock.Advance(24*time.Hour + time.Second)
	w.maintain()
	if n := w.keys(session.PastKeys); n != len(recent) || !w.lives(stays) {
		t.Errorf("%d tombstones are left, want %d; alive: %v", n, len(recent), w.lives(stays))
	}
	if _, err := w.Get(t.Context(), old[0]); err == nil {
		t.Error("a session is shown after the retention")
	}
	if entries, err := store.ReadLog(t.Context(), w.inner, 0, 0); err != nil || len(entries) != 2*len(recent) {
		t.Errorf("%d events are left, %v", len(entries), err)
	}
	item, err := w.inner.Get(t.Context(), store.AnchorKey)
	if err != nil {
		t.Fatal(err)
	}
	anchor, err := store.DecodeHead(item.Value)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := store.VerifyLog(t.Context(), w.inner, anchor, nil); err != nil || got != head {
		t.Errorf("from the anchor %d the log reaches %d, %v, want %d", anchor.Seq, got.Seq, err, head.Seq)
	}
}

func TestNothingIsPurgedWithoutAPolicy(t *testing.T) {
	c := unlimited()
	c.Defaults.RetentionPolicy = "neverPurge"
	w := newWorld(t, c)
	v, _ := w.issued("ann")
	if _, err := w.end(v.Handle); err != nil {
		t.Fatal(err)
	}
	w.clock.Advance(100 * 365 * 24 * time.Hour / 2)
	w.maintain()
	if _, err := w.tombstone(v.Handle); err != nil || len(w.events(v.Handle)) != 2 {
		t.Errorf("%v, %d events", err, len(w.events(v.Handle)))
	}
}

// Listings show who lives, in the order of creation, in pages of any size.
func TestList(t *testing.T) {
	w := newWorld(t, unlimited())
	var want []api.ID
	for i := range 50 {
		v, _ := w.issued("ann", idle(int64(100+i%2*100)))
		w.clock.Advance(time.Millisecond)
		switch {
		case i%5 == 0:
			if _, err := w.end(v.Handle); err != nil {
				t.Fatal(err)
			}
		case i%2 == 1:
			want = append(want, v.Handle)
		}
	}
	w.advance(150) // half of them are idle, and nobody has swept
	for _, limit := range []int{1, 2, 3, 19, 20, 21, 1000} {
		var got []api.ID
		var after api.ID
		for pages := 0; ; pages++ {
			n := 0
			err := w.Each(t.Context(), session.Scan{After: after}, func(v *session.View) bool {
				got = append(got, v.Handle)
				n++
				return n < limit
			})
			if err != nil || pages > 60 {
				t.Fatalf("a page at a limit of %d: %v", limit, err)
			}
			if n < limit {
				break
			}
			after = got[len(got)-1]
		}
		if !slices.Equal(got, want) {
			t.Errorf("in pages of %d: %d sessions, want %d", limit, len(got), len(want))
		}
	}
	views, err := w.Views(t.Context(), w.OfAccount(func() api.ID { v, _ := w.issued("ann"); return v.AccountID }()))
	if err != nil || len(views) != len(want)+1 || views[0].Handle != want[0] || views[0].RealmRoles[0] != "shopper" {
		t.Errorf("%d views, %v", len(views), err)
	}
}
