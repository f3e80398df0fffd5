package session_test

import (
	"context"
	"slices"
	"testing"

	"sessiond/internal/account"
	"sessiond/internal/api"
	"sessiond/internal/event"
	"sessiond/internal/session"
	"sessiond/store"
	"sessiond/store/mem"
)

// What becomes of a key of a backup, and of what its tombstone says, after something
// has happened that the journal tells. A session ends whatever that was.
func TestRestore(t *testing.T) {
	for name, tt := range map[string]struct {
		keys    session.Keys
		happens func(w *world, key api.ID, token string)
		lives   bool
		reason  string // of its tombstone
		status  session.Status
	}{
		"nothing":                {session.KeysFromJournal, nil, true, "", 0},
		"nothing is known":       {session.KeysEnded, nil, false, "restored", session.Revoked},
		"nothing need be known":  {session.KeysAccepted, nil, true, "", 0},
		"it ended, all the same": {session.KeysAccepted, (*world).ends, true, "", 0}, // its journal is not to be had
		"it ended":               {session.KeysFromJournal, (*world).ends, false, "logout", session.Ended},
		"it was revoked": {session.KeysFromJournal, func(w *world, key api.ID, _ string) {
			w.do(w.End(w.ctx(), key, w.NewEnd(session.Revoked, "stolen", nil), event.Actor{}))
		}, false, "stolen", session.Revoked},
		"it was rotated": {session.KeysFromJournal, func(w *world, _ api.ID, token string) { w.rotate(token) }, false, "restored", session.Revoked},
		"it was rotated and ended": {session.KeysFromJournal, func(w *world, key api.ID, token string) {
			w.rotate(token)
			w.ends(key, token)
		}, false, "restored", session.Revoked},
		"all of its account ended": {session.KeysFromJournal, func(w *world, _ api.ID, _ string) {
			w.do(w.EndAccount(w.ctx(), "web", "ann", true, &session.AccountChange{Event: event.Event{Kind: event.AccountSessionsEnded}}))
		}, false, "massLogout", session.Revoked},
		"the sessions of its account ended": {session.KeysFromJournal, func(w *world, _ api.ID, _ string) {
			w.do(w.EndAccount(w.ctx(), "web", "ann", false, &session.AccountChange{Event: event.Event{Kind: event.AccountSessionsEnded}}))
		}, true, "", 0},
		"all of its realm ended": {session.KeysFromJournal, func(w *world, _ api.ID, _ string) {
			w.everything(session.EndEverywhere{Realm: "web", Permanent: true, Reason: "sold"})
		}, false, "sold", session.Revoked},
		"all of another realm ended": {session.KeysFromJournal, func(w *world, _ api.ID, _ string) {
			w.everything(session.EndEverywhere{Realm: "staff", Permanent: true})
		}, true, "", 0},
		"the sessions of its realm ended": {session.KeysFromJournal, func(w *world, _ api.ID, _ string) { w.everything(session.EndEverywhere{Realm: "web"}) }, true, "", 0},
		"everything ended":                {session.KeysFromJournal, func(w *world, _ api.ID, _ string) { w.everything(session.EndEverywhere{Permanent: true}) }, false, "massLogout", session.Revoked},
		"its account was dropped": {session.KeysFromJournal, func(w *world, _ api.ID, _ string) {
			_, _, _, err := w.DropAccounts(w.ctx(), "web", []string{"ann"}, &session.AccountChange{Change: func(*account.Account) error { return nil }})
			w.do(true, err)
		}, false, "accountDropped", session.Revoked},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, unlimited())
			gone, goneToken := w.issued("ann", permanent)
			w.do(w.end(gone.Handle))
			key, token := w.issued("ann", permanent)
			sess, sessToken := w.issued("ann")
			other, otherToken := w.issued("bob", in(w, "staff"), permanent)
			backup := copied(t, w.inner)
			head := lastOf(t, w.inner)
			w.advance(60)
			if tt.happens != nil {
				tt.happens(w, key.Handle, token)
				w.maintain() // the ends of an epoch have events of their own
			}
			w.advance(60)
			r := session.Restoration{Store: backup, Now: w.clock.Now(), Realms: realms(), Keys: tt.keys}
			if tt.keys == session.KeysFromJournal {
				r.Journal = journalOf(t, w.inner, head)
			}
			done, err := session.Restore(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			w = newWorldOn(t, unlimited(), backup, backup)
			w.advance(180)
			if w.lives(token) != tt.lives || w.lives(sessToken) || w.lives(goneToken) {
				t.Errorf("lives: the key %v, want %v, the session %v, the one that had ended %v", w.lives(token), tt.lives, w.lives(sessToken), w.lives(goneToken))
			}
			if want := tt.keys != session.KeysEnded && name != "everything ended" && name != "all of another realm ended"; w.lives(otherToken) != want {
				t.Errorf("another key lives: %v, want %v", !want, want)
			}
			left := int64(len(w.OfAccount(key.AccountID)) + len(w.OfAccount(other.AccountID)))
			if done.Sessions != 1 || done.Keys != 2 || done.Keys-done.KeysEnded != left {
				t.Errorf("it says %+v, and %d live", done, left)
			}
			w.maintain()
			w.recount()
			sessionReason := "restored"
			if name == "all of its realm ended" || name == "its account was dropped" { // before, or with it
				sessionReason = tt.reason
			}
			w.isTombstone(sess.Handle, session.Revoked, sessionReason)
			if !tt.lives {
				w.isTombstone(key.Handle, tt.status, tt.reason)
			}
			first := entriesAfter(t, backup, head.Seq)[0]
			if e, err := event.Decode(first); err != nil || e.Kind != event.StoreRestored || e.Reason != string(tt.keys) {
				t.Errorf("the first event is %+v, %v", e, err)
			}
		})
	}
}

// do fails the test where something was not done.
func (w *world) do(_ any, err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("%v", err)
	}
}

func (w *world) ends(key api.ID, _ string) { w.t.Helper(); w.do(w.end(key)) }

func (w *world) everything(how session.EndEverywhere) {
	w.t.Helper()
	_, _, err := w.EndEverywhere(w.ctx(), how)
	w.do(nil, err)
}

func (w *world) isTombstone(h api.ID, status session.Status, reason string) {
	w.t.Helper()
	r, err := w.tombstone(h)
	if err != nil || r.End.Status != status || r.End.Reason != reason {
		w.t.Errorf("the tombstone is %+v, %v, want %v for %q", r, err, status, reason)
	}
}

// copied returns a store that holds the same.
func copied(t *testing.T, from store.Store) store.Store {
	t.Helper()
	to := mem.New()
	commit := func(tx store.Tx) {
		if _, err := to.Commit(t.Context(), tx); err != nil {
			t.Fatal(err)
		}
	}
	for _, kind := range []string{"acct/", "role/", "sess/", "end/", "past/", "epoch/", "server/", "touch/"} {
		items, err := from.List(t.Context(), store.Range{Prefix: kind})
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range items {
			commit(store.Tx{Put: []store.Put{{Key: item.Key, Value: item.Value}}})
		}
	}
	for _, entry := range entriesAfter(t, from, 0) {
		commit(store.Tx{Append: [][]byte{entry.Data}})
	}
	return to
}

func entriesAfter(t *testing.T, s store.Store, seq uint64) []store.Entry {
	t.Helper()
	entries, err := store.ReadLog(t.Context(), s, seq, 0)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func lastOf(t *testing.T, s store.Store) store.Head {
	t.Helper()
	entries := entriesAfter(t, s, 0)
	last := entries[len(entries)-1]
	return store.Head{Seq: last.Seq, Hash: last.Hash}
}

// journalOf is what a journal holds of a store since a place of its log.
func journalOf(t *testing.T, s store.Store, since store.Head) []event.Revocation {
	t.Helper()
	path := t.TempDir() + "/journal"
	j, err := event.OpenJournal(t.Context(), path, event.JournalDeps{
		Store: s, Server: "here", Failed: func(err error) { t.Error(err) },
		Left: func(ctx context.Context, e *event.Event) ([]byte, error) { return account.Left(ctx, s, e) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := event.Revoked(t.Context(), path, "here", s, since)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Clip(all)
}
